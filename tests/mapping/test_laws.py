"""The laws that every family obeys, over all models that the enumerator lists."""

from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping.spelled_twins import (
    ALL_KEYS,
    SPELLINGS,
    every_language,
    every_spelling,
    family_of,
    recognised,
    route_of,
    specs_as,
)
from mapping_enumerator import Twin, sample, twins
from plans import is_identity

from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import make_plan, prove
from internvl_bridge.mapping.plan import TensorSpec, compose, identity, invert
from internvl_bridge.mapping.routes import plan_route
from internvl_bridge.mapping.schema import hf_schema
from internvl_bridge.mapping.spellings import CUSTOM, KeySpelling, spelled_table, spelling_of
from internvl_bridge.mapping.transforms import group_into, recipes_into, source_patterns

TO_HF, TO_CUSTOM = Format.HF, Format.CUSTOM

few = settings(max_examples=15)
any_keys = st.sampled_from(ALL_KEYS)


def table_of(twin: Twin):
    return family_of(twin).table(twin.dims.text)


@every_language
@few
@given(data=st.data())
def test_forward_makes_exactly_the_hf_tensors(language: str, data: st.DataObject) -> None:
    twin = data.draw(twins(language))

    assert make_plan(table_of(twin), twin.custom, TO_HF).targets == twin.hf


@every_language
@few
@given(data=st.data())
def test_inverse_makes_exactly_the_custom_tensors(language: str, data: st.DataObject) -> None:
    twin = data.draw(twins(language))

    assert make_plan(table_of(twin), twin.hf, TO_CUSTOM).targets == twin.custom


@every_language
@few
@given(data=st.data())
def test_the_two_directions_undo_each_other(language: str, data: st.DataObject) -> None:
    twin = data.draw(twins(language))
    forward = make_plan(table_of(twin), twin.custom, TO_HF)
    inverse = make_plan(table_of(twin), twin.hf, TO_CUSTOM)

    assert invert(forward) == inverse
    assert invert(inverse) == forward
    assert is_identity(compose(inverse, forward))
    assert is_identity(compose(forward, inverse))
    prove(forward, lambda specs: make_plan(table_of(twin), specs, TO_CUSTOM))


@every_language
@few
@given(data=st.data())
def test_every_source_element_is_used_exactly_once(language: str, data: st.DataObject) -> None:
    twin = data.draw(twins(language))
    plan = make_plan(table_of(twin), twin.custom, TO_HF)
    used = sorted((run.key, run.start, run.stop) for recipe in plan.recipes.values() for run in recipe.runs)

    for key, spec in twin.custom.items():
        ends = [(start, stop) for name, start, stop in used if name == key]
        assert ends[0][0] == 0
        assert ends[-1][1] == spec.elements
        assert [stop for _, stop in ends[:-1]] == [start for start, _ in ends[1:]]


@every_language
@few
@given(data=st.data())
def test_the_order_of_keys_never_matters(language: str, data: st.DataObject) -> None:
    twin = data.draw(twins(language))
    custom = dict(data.draw(st.permutations(list(twin.custom.items()))))
    hf = dict(data.draw(st.permutations(list(twin.hf.items()))))

    assert make_plan(table_of(twin), custom, TO_HF) == make_plan(table_of(twin), twin.custom, TO_HF)
    assert make_plan(table_of(twin), hf, TO_CUSTOM) == make_plan(table_of(twin), twin.hf, TO_CUSTOM)


@every_language
@few
@given(data=st.data())
def test_the_schema_lists_exactly_the_hf_tensors(language: str, data: st.DataObject) -> None:
    twin = data.draw(twins(language))

    assert hf_schema(family_of(twin), twin.dims, twin.hf) == {key: spec.shape for key, spec in twin.hf.items()}


@every_language
@every_spelling
@settings(max_examples=5)
@given(data=st.data())
def test_a_spelled_table_ends_in_its_spelling_and_back(
    language: str, spelling: KeySpelling, data: st.DataObject
) -> None:
    twin = data.draw(twins(language))
    table = spelled_table(family_of(twin), twin.dims.text, spelling)
    there = make_plan(table, twin.custom, TO_HF)

    assert there.targets == specs_as(twin, spelling)
    assert is_identity(compose(make_plan(table, there.targets, TO_CUSTOM), there))


@every_language
@every_spelling
@settings(max_examples=5)
@given(data=st.data())
def test_the_spelling_of_every_model_is_recognised(language: str, spelling: KeySpelling, data: st.DataObject) -> None:
    twin = data.draw(twins(language))

    assert spelling_of(specs_as(twin, spelling), family_of(twin)) == recognised(twin, spelling)


@every_language
@few
@given(data=st.data(), source=any_keys, target=any_keys)
def test_a_route_ends_in_exactly_the_tensors_of_its_target(
    language: str, data: st.DataObject, source: KeySpelling, target: KeySpelling
) -> None:
    twin = data.draw(twins(language))
    plan = plan_route(route_of(twin, source, target), specs_as(twin, source))

    assert plan.sources == specs_as(twin, source)
    assert plan.targets == specs_as(twin, target)


@every_language
@few
@given(data=st.data(), source=any_keys, target=any_keys)
def test_a_route_and_its_reverse_undo_each_other(
    language: str, data: st.DataObject, source: KeySpelling, target: KeySpelling
) -> None:
    twin = data.draw(twins(language))
    route = route_of(twin, source, target)
    there = plan_route(route, specs_as(twin, source))
    back = plan_route(route.reverse, there.targets)

    assert invert(there) == back
    assert invert(back) == there
    assert is_identity(compose(back, there))
    prove(there, partial(plan_route, route.reverse))


@every_language
@few
@given(data=st.data(), keys=any_keys)
def test_a_route_that_ends_where_it_starts_moves_nothing(language: str, data: st.DataObject, keys: KeySpelling) -> None:
    twin = data.draw(twins(language))

    assert plan_route(route_of(twin, keys, keys), specs_as(twin, keys)) == identity(specs_as(twin, keys))


@every_language
@few
@given(data=st.data(), source=any_keys, way=any_keys, target=any_keys)
def test_a_detour_changes_nothing(
    language: str, data: st.DataObject, source: KeySpelling, way: KeySpelling, target: KeySpelling
) -> None:
    twin = data.draw(twins(language))
    first = plan_route(route_of(twin, source, way), specs_as(twin, source))
    second = plan_route(route_of(twin, way, target), first.targets)

    assert compose(second, first) == plan_route(route_of(twin, source, target), specs_as(twin, source))


@every_language
@few
@given(data=st.data(), spelling=st.sampled_from(SPELLINGS))
def test_groups_are_converted_as_they_are_among_all(language: str, data: st.DataObject, spelling: KeySpelling) -> None:
    """What streaming relies on: the keys that a row needs together with one are those that need it."""
    twin = data.draw(twins(language))
    for route in (route_of(twin, CUSTOM, spelling), route_of(twin, spelling, CUSTOM)):
        table, direction = route.first_table, route.source.format.other
        specs = specs_as(twin, route.source)
        key = data.draw(st.sampled_from(sorted(specs)))
        [row] = [row for row in table if any(pattern.matches(key) for pattern in source_patterns(direction, row))]
        group = group_into(direction, row, key)

        assert key in group
        assert len(set(group)) == len(group)
        assert all(group_into(direction, row, other) == group for other in group)
        alone: dict[str, TensorSpec] = {other: specs[other] for other in group}
        whole = plan_route(route, specs)
        assert recipes_into(direction, row, alone) == {
            made: recipe for made, recipe in whole.recipes.items() if any(run.key in alone for run in recipe.runs)
        }


@every_language
@pytest.mark.parametrize("source", ALL_KEYS, ids=lambda keys: f"from {keys.name if keys else 'custom'}")
@pytest.mark.parametrize("target", ALL_KEYS, ids=lambda keys: keys.name if keys else "custom")
def test_every_pair_of_spellings_has_a_route_and_a_proof(
    target: KeySpelling, source: KeySpelling, language: str
) -> None:
    twin = sample(language)
    route = route_of(twin, source, target)
    plan = plan_route(route, specs_as(twin, source))
    by_way_of_custom = compose(
        plan_route(replace(route, source=CUSTOM), twin.custom),
        plan_route(replace(route, target=CUSTOM), specs_as(twin, source)),
    )

    assert plan.targets == specs_as(twin, target)
    assert plan == by_way_of_custom
    prove(plan, partial(plan_route, route.reverse))
