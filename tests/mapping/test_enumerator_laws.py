"""The laws that every family obeys, over all models that the enumerator lists."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_enumerator import LANGUAGES, Twin, twins

from internvl_bridge.mapping.families import FAMILIES, Family
from internvl_bridge.mapping.plan import compose, invert, is_identity
from internvl_bridge.mapping.planning import Direction, make_plan, prove
from internvl_bridge.mapping.schema import hf_schema
from internvl_bridge.mapping.spellings import L1, SPELLINGS, detect_spelling, respell, spelled

TO_HF, TO_CUSTOM = Direction.TO_HF, Direction.TO_CUSTOM

every_language = pytest.mark.parametrize("language", LANGUAGES)
few = settings(max_examples=15)


def family_of(twin: Twin) -> Family:
    [family] = [family for family in FAMILIES if family.name == twin.family]
    return family


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

    assert hf_schema(twin.dims, twin.hf) == {key: spec.shape for key, spec in twin.hf.items()}


@every_language
@few
@given(data=st.data(), old=st.sampled_from(SPELLINGS), new=st.sampled_from(SPELLINGS))
def test_respelling_there_and_back_is_the_identity(language: str, data: st.DataObject, old, new) -> None:
    spelled = respell(data.draw(twins(language)).hf, L1, old).targets
    there = respell(spelled, old, new)

    assert is_identity(compose(respell(there.targets, new, old), there))
    assert detect_spelling(spelled) is old


@every_language
@pytest.mark.parametrize("spelling", SPELLINGS, ids=lambda spelling: spelling.name)
@settings(max_examples=5)
@given(data=st.data())
def test_a_spelled_table_ends_in_its_spelling_and_back(language: str, spelling, data: st.DataObject) -> None:
    twin = data.draw(twins(language))
    table = spelled(table_of(twin), spelling)
    there = make_plan(table, twin.custom, TO_HF)

    assert there.targets == respell(twin.hf, L1, spelling).targets
    assert is_identity(compose(make_plan(table, there.targets, TO_CUSTOM), there))
