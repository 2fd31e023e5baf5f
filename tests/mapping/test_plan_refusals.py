"""Plans that lose, double or misplace an element are refused, and the refusal names the tensor."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import ContradictionError, ProofError
from internvl_bridge.mapping.make_plan import prove
from internvl_bridge.mapping.plan import Plan, Recipe, Run, TensorSpec, compose, identity, invert

SIX = TensorSpec("F32", (6,))


def plan_of(*runs: tuple[int, int]) -> Plan:
    """From the six elements of ``source``, the given runs as targets of their own."""
    return Plan(
        {"source": SIX},
        {
            f"target{number}": Recipe(TensorSpec("F32", (stop - start,)), (Run("source", start, stop),))
            for number, (start, stop) in enumerate(runs)
        },
    )


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        ([(1, 6)], "Element 0 of source is not used."),
        ([(0, 5)], "Element 5 of source is not used."),
        ([(0, 2), (3, 6)], "Element 2 of source is not used."),
        ([(4, 6), (0, 3)], "Element 3 of source is not used."),
        ([], "Element 0 of source is not used."),
        ([(0, 6), (0, 6)], "Element 0 of source is used twice."),
        ([(0, 4), (3, 6)], "Element 3 of source is used twice."),
        ([(5, 6), (0, 6)], "Element 5 of source is used twice."),
    ],
)
def test_lost_and_doubled_elements_are_named(runs: list[tuple[int, int]], problem: str) -> None:
    with pytest.raises(ProofError) as error:
        invert(plan_of(*runs))

    assert error.value.reason == problem


@given(cut=st.integers(1, 5), lost=st.integers(0, 1))
def test_any_run_left_out_is_noticed(cut: int, lost: int) -> None:
    complete = [(0, cut), (cut, 6)]
    invert(plan_of(*complete))
    del complete[lost]

    with pytest.raises(ProofError, match=rf"^Element {[0, cut][lost]} of source is not used\."):
        invert(plan_of(*complete))


@pytest.mark.parametrize("shape", [(5,), (7,), (2, 4)])
def test_a_target_that_its_runs_do_not_fill_exactly_is_named(shape: tuple[int, ...]) -> None:
    plan = Plan({"source": SIX}, {"target": Recipe(TensorSpec("F32", shape), (Run("source", 0, 6),))})

    with pytest.raises(ProofError, match=r"^The plan fills 6 of the \d elements of target\."):
        invert(plan)


@pytest.mark.parametrize(
    "other",
    [
        {"target": TensorSpec("F32", (7,))},
        {"target": TensorSpec("BF16", (6,))},
        {"target": TensorSpec("F32", (2, 3))},
        {"target": SIX, "other": SIX},
        {},
    ],
)
def test_plans_that_do_not_meet_are_not_composed(other: dict[str, TensorSpec]) -> None:
    inner = Plan({"source": SIX}, {"target": Recipe(SIX, (Run("source", 0, 6),))})

    with pytest.raises(ContradictionError, match=r"^Two plans do not meet at (target|other)\."):
        compose(identity(other), inner)


HALVES = Plan(
    {"source": SIX},
    {
        "low": Recipe(TensorSpec("F32", (3,)), (Run("source", 0, 3),)),
        "high": Recipe(TensorSpec("F32", (3,)), (Run("source", 3, 6),)),
    },
)


def back_with(*runs: Run, spec: TensorSpec = SIX, key: str = "source"):
    return lambda targets: Plan(targets, {key: Recipe(spec, runs)})


def test_the_right_way_back_is_proved() -> None:
    prove(HALVES, back_with(Run("low", 0, 3), Run("high", 0, 3)))


@pytest.mark.parametrize(
    "back",
    [
        back_with(Run("high", 0, 3), Run("low", 0, 3)),
        back_with(Run("low", 0, 3), Run("low", 0, 3)),
        back_with(Run("low", 0, 3)),
        back_with(),
        back_with(Run("low", 0, 3), Run("high", 0, 3), spec=TensorSpec("F32", (3, 2))),
        back_with(Run("low", 0, 3), Run("high", 0, 3), spec=TensorSpec("F16", (6,))),
        lambda targets: Plan(targets, {}),
    ],
    ids=["swapped", "doubled", "half", "empty", "shape", "dtype", "nothing"],
)
def test_a_wrong_way_back_is_refused(back) -> None:
    with pytest.raises(ProofError, match=r"^Converting back would not restore source\."):
        prove(HALVES, back)


def test_a_way_back_that_makes_something_else_is_refused() -> None:
    back = back_with(Run("low", 0, 3), Run("high", 0, 3), key="elsewhere")

    with pytest.raises(ProofError, match=r"^Converting back would not restore source, elsewhere\."):
        prove(HALVES, back)


def test_a_plan_that_loses_elements_is_not_proved_whatever_the_way_back() -> None:
    lossy = plan_of((0, 3))

    with pytest.raises(ProofError, match="Element 3 of source is not used"):
        prove(lossy, lambda targets: Plan(targets, {"source": Recipe(SIX, (Run("target0", 0, 3),))}))
