"""The algebra of plans, on random rearrangements: what inverting and composing mean, and their laws."""

from collections.abc import Mapping
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from plans import is_identity

from internvl_bridge.mapping.plan import Plan, Recipe, Run, TensorSpec, compose, identity, invert, joined

Specs = Mapping[str, TensorSpec]
Values = Mapping[str, list[object]]


def tensors_of(specs: Specs) -> Values:
    """Tensors in which every element says where it comes from."""
    return {key: [(key, place) for place in range(spec.elements)] for key, spec in specs.items()}


def carried_out(plan: Plan, values: Values) -> Values:
    """What the plan means, element by element."""
    return {
        key: [element for run in recipe.runs for element in values[run.key][run.start : run.stop]]
        for key, recipe in plan.recipes.items()
    }


def with_joined_runs(plan: Plan) -> Plan:
    return Plan(plan.sources, {key: Recipe(r.spec, joined(r.runs)) for key, r in plan.recipes.items()})


@st.composite
def spec_sets(draw: st.DrawFn) -> Specs:
    shapes = draw(st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple), min_size=1, max_size=4))
    return {f"source{number}": TensorSpec("F32", shape) for number, shape in enumerate(shapes)}


@st.composite
def rearrangements(draw: st.DrawFn, sources: Specs | None = None, name: str = "target") -> Plan:
    """Sources cut into runs, the runs shuffled, and dealt out to targets."""
    specs = draw(spec_sets()) if sources is None else sources
    runs = []
    for key, spec in specs.items():
        inner = draw(st.sets(st.integers(1, max(1, spec.elements - 1)), max_size=4))
        ends = sorted({0, spec.elements} | {cut for cut in inner if cut < spec.elements})
        runs += [Run(key, start, stop) for start, stop in pairwise(ends)]
    shuffled = draw(st.permutations(runs))
    hands: dict[int, list[Run]] = {}
    for run in shuffled:
        hands.setdefault(draw(st.integers(0, 3)), []).append(run)
    recipes = {}
    for hand, dealt in hands.items():
        spec = TensorSpec("F32", (sum(run.stop - run.start for run in dealt),))
        recipes[f"{name}{hand}"] = Recipe(spec, tuple(dealt))
    return Plan(specs, recipes)


@given(plan=rearrangements())
def test_the_inverse_restores_every_source(plan: Plan) -> None:
    values = tensors_of(plan.sources)

    assert carried_out(invert(plan), carried_out(plan, values)) == values


@given(plan=rearrangements())
def test_the_inverse_of_the_inverse_is_the_plan_up_to_joined_runs(plan: Plan) -> None:
    assert invert(invert(plan)) == with_joined_runs(plan)


@given(plan=rearrangements())
def test_a_plan_and_its_inverse_compose_to_the_identity(plan: Plan) -> None:
    assert is_identity(compose(invert(plan), plan))
    assert is_identity(compose(plan, invert(plan)))


@given(data=st.data(), first=rearrangements())
def test_composing_is_doing_one_after_the_other(data: st.DataObject, first: Plan) -> None:
    second = data.draw(rearrangements(first.targets, "second"))
    values = tensors_of(first.sources)

    assert carried_out(compose(second, first), values) == carried_out(second, carried_out(first, values))


@given(data=st.data(), first=rearrangements())
def test_composing_is_associative(data: st.DataObject, first: Plan) -> None:
    second = data.draw(rearrangements(first.targets, "second"))
    third = data.draw(rearrangements(second.targets, "third"))

    assert compose(third, compose(second, first)) == compose(compose(third, second), first)


@given(data=st.data(), first=rearrangements())
def test_inverting_reverses_a_composition(data: st.DataObject, first: Plan) -> None:
    second = data.draw(rearrangements(first.targets, "second"))

    assert invert(compose(second, first)) == compose(invert(first), invert(second))


@given(plan=rearrangements())
def test_composing_with_the_identity_changes_nothing(plan: Plan) -> None:
    assert compose(identity(plan.targets), plan) == with_joined_runs(plan)
    assert compose(plan, identity(plan.sources)) == with_joined_runs(plan)


@given(plan=rearrangements())
def test_only_plans_that_move_nothing_are_identities(plan: Plan) -> None:
    values = tensors_of(plan.sources)
    moved = carried_out(with_joined_runs(plan), values) != values

    assert is_identity(identity(plan.sources))
    assert not (moved and is_identity(with_joined_runs(plan)))


def test_two_tensors_swapped_are_no_identity() -> None:
    specs = {"a": TensorSpec("F32", (2,)), "b": TensorSpec("F32", (2,))}
    swapped = {"a": Recipe(specs["a"], (Run("b", 0, 2),)), "b": Recipe(specs["b"], (Run("a", 0, 2),))}

    assert not is_identity(Plan(specs, swapped))


def test_a_changed_shape_is_no_identity() -> None:
    flat, square = TensorSpec("F32", (4,)), TensorSpec("F32", (2, 2))

    assert not is_identity(Plan({"a": flat}, {"a": Recipe(square, (Run("a", 0, 4),))}))


def test_an_empty_tensor_stays_where_it_is_whatever_its_runs() -> None:
    empty = TensorSpec("F32", (0, 3))

    assert is_identity(Plan({"a": empty}, {"a": Recipe(empty, ())}))
    assert invert(identity({"a": empty})) == identity({"a": empty})


def test_neighbouring_runs_are_joined_and_others_are_not() -> None:
    runs = (Run("a", 0, 2), Run("a", 2, 3), Run("b", 3, 4), Run("a", 3, 4), Run("a", 5, 6), Run("a", 4, 5))

    assert joined(runs) == (
        Run("a", 0, 3),
        Run("b", 3, 4),
        Run("a", 3, 4),
        Run("a", 5, 6),
        Run("a", 4, 5),
    )


def test_a_scalar_has_one_element() -> None:
    assert TensorSpec("F32", ()).elements == 1
    assert TensorSpec("F32", (2, 3, 4)).elements == 24
