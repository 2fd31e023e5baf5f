"""Plan a conversion of tensors that are exactly those which config.json describes, and prove it."""

from collections.abc import Mapping
from dataclasses import dataclass

from internvl_bridge.errors import ContradictionError
from internvl_bridge.mapping.contradictions import check_against
from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.mapping.planning import Direction, make_plan, prove
from internvl_bridge.mapping.schema import HEAD, has_head, has_mxfp4, hf_schema
from internvl_bridge.mapping.spellings import L1, Spelling, respell, spelled
from internvl_bridge.metadata.described import Described
from internvl_bridge.metadata.expressible import check_expressible

Specs = Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True)
class CheckedPlan:
    """A proved plan, and what the keys say that config.json cannot overrule.

    ``tied``: there is no output head of its own. ``mxfp4``: experts are stored in 4-bit blocks.
    """

    plan: Plan
    tied: bool
    mxfp4: bool


def checked_plan(model: Described, specs: Specs, direction: Direction, spelling: Spelling) -> CheckedPlan:
    """Plan the conversion of all tensors of ``model``, with HF keys in ``spelling``.

    ``model`` may be described in either format. Raises UnsupportedModelError for what the other format
    cannot express, and UnknownKeyError, IncompleteGroupError, MissingKeyError or ContradictionError,
    naming keys of ``specs``; ProofError if converting back would not restore every element.
    """
    check_expressible(model)
    _check_sizes(model, specs)
    table = spelled(model.family.table(model.dims.text), spelling)
    plan = make_plan(table, specs, direction)
    hf = plan.targets if direction is Direction.TO_HF else specs
    portable = hf if spelling is L1 else respell(hf, spelling, L1).targets
    if not _matches(model, portable):
        schema = {key: TensorSpec("any", shape) for key, shape in _schema(model, portable).items()}
        expected = respell(schema, L1, spelling).targets
        if direction is Direction.TO_HF:
            expected = make_plan(table, expected, Direction.TO_CUSTOM).targets
        check_against({key: spec.shape for key, spec in expected.items()}, specs)
    prove(plan, lambda targets: make_plan(table, targets, direction.reverse))
    return CheckedPlan(plan, tied=not has_head(portable), mxfp4=has_mxfp4(portable))


def _matches(model: Described, portable: Specs) -> bool:
    return _schema(model, portable) == {key: spec.shape for key, spec in portable.items()}


def _schema(model: Described, portable: Specs) -> dict[str, tuple[int, ...]]:
    return hf_schema(model.dims, portable.keys() if model.may_be_tied else portable.keys() | {HEAD})


def _check_sizes(model: Described, specs: Specs) -> None:
    """Refuse what would make enumerating absurd: every layer and every expert has a tensor with elements."""
    empty = next((key for key, spec in specs.items() if not spec.elements), None)
    if empty is not None:
        raise ContradictionError(
            f"{empty} has shape {list(specs[empty].shape)[:8]}, which holds nothing.",
            "The checkpoint is damaged (a sharded trainer may have saved placeholders): save it again.",
        )
    text, vision = model.dims.text, model.dims.vision
    _check_count(model, "vision_config's num_hidden_layers", vision.layers, specs)
    _check_count(model, "num_hidden_layers", text.layers, specs)
    if text.experts and text.model_type == "qwen3_moe":
        count = text.experts.experts * text.experts.layers_of(text.layers)
        _check_count(model, "num_experts of all layers together", count, specs)


def _check_count(model: Described, name: str, count: int, specs: Specs) -> None:
    if count > len(specs):
        raise ContradictionError(
            f"{model.file.path} says that {name} is {count}, but the checkpoint has only {len(specs)} tensors.",
            "Use the config.json that this checkpoint was saved with.",
        )
