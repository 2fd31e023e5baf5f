"""The one rule for heads that are the input embeddings: what they are, and where they are stored."""

import pytest

from internvl_bridge.mapping.plan import Plan, TensorSpec, identity
from internvl_bridge.mapping.tied_head import TiedHead
from internvl_bridge.planning.output_head import OutputHead, output_head, plan_with_head, specs_to_plan

TIE = TiedHead("in", "out")
SPEC = TensorSpec("BF16", (4, 2))
BOTH = {"in": SPEC, "out": TensorSpec("BF16", (4, 2))}


@pytest.mark.parametrize(
    ("specs", "may_be_tied", "same", "expected"),
    [
        ({"in": SPEC}, True, None, OutputHead.SHARED),
        (BOTH, False, None, OutputHead.OWN),
        (BOTH, True, True, OutputHead.COPY),
        (BOTH, True, False, OutputHead.OWN),
        ({"in": SPEC, "out": TensorSpec("F16", (4, 2))}, True, None, OutputHead.OWN),
        ({"out": SPEC}, True, None, OutputHead.OWN),
    ],
)
def test_what_a_head_is(specs: dict[str, TensorSpec], may_be_tied: bool, same: bool | None, expected: OutputHead):
    """Where ``same`` is None, no bit may be read."""

    def same_bits(left: str, right: str) -> bool:
        assert same is not None
        assert {left, right} == {"in", "out"}
        return same

    assert output_head(TIE, specs, same_bits, may_be_tied=may_be_tied) is expected


@pytest.mark.parametrize(
    ("head", "stores_copy", "planned", "made"),
    [
        (OutputHead.OWN, False, BOTH, BOTH),
        (OutputHead.OWN, True, BOTH, BOTH),
        (OutputHead.COPY, False, {"in": SPEC}, {"in": SPEC}),
        (OutputHead.COPY, True, BOTH, BOTH),
        (OutputHead.SHARED, False, {"in": SPEC}, {"in": SPEC}),
        (OutputHead.SHARED, True, {"in": SPEC}, BOTH),
    ],
)
def test_where_a_head_is_stored(
    head: OutputHead, stores_copy: bool, planned: dict[str, TensorSpec], made: dict[str, TensorSpec]
):
    specs = {"in": SPEC} if head is OutputHead.SHARED else BOTH
    found = specs_to_plan(head, TIE, specs, stores_copy=stores_copy)
    plan = plan_with_head(head, TIE, identity(found), stores_copy=stores_copy)

    assert found == planned
    assert plan.targets == made


def test_without_embeddings_there_is_nothing_to_copy():
    plan = Plan({}, {})

    assert plan_with_head(OutputHead.SHARED, TIE, plan, stores_copy=True) is plan
