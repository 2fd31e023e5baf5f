"""One key dropped, added, renamed or moved anywhere: always the error that names the cause."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_enumerator import LANGUAGES, Twin, twins

from internvl_bridge.errors import ContradictionError, IncompleteGroupError, MissingKeyError, UnknownKeyError
from internvl_bridge.mapping.families import FAMILIES
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import make_plan
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.schema_check import check_against

every_language = pytest.mark.parametrize("language", LANGUAGES)
few = settings(max_examples=12)
directions = st.sampled_from(Format)


def source(twin: Twin, direction: Format) -> dict[str, TensorSpec]:
    return dict(twin.custom if direction is Format.HF else twin.hf)


def plan_and_check(twin: Twin, specs: dict[str, TensorSpec], direction: Format) -> None:
    [family] = [family for family in FAMILIES if family.name == twin.family]
    make_plan(family.table(twin.dims.text), specs, direction)
    check_against({key: spec.shape for key, spec in source(twin, direction).items()}, specs)


def is_part_of_a_fused_tensor(twin: Twin, key: str) -> bool:
    return key not in twin.custom and key.rpartition(".")[0].endswith(("q_proj", "k_proj", "v_proj"))


@every_language
@few
@given(data=st.data(), direction=directions)
def test_a_complete_checkpoint_is_accepted(language: str, data: st.DataObject, direction) -> None:
    twin = data.draw(twins(language))
    plan_and_check(twin, source(twin, direction), direction)


@every_language
@few
@given(data=st.data(), direction=directions)
def test_a_dropped_key_is_missed(language: str, data: st.DataObject, direction) -> None:
    twin = data.draw(twins(language))
    specs = source(twin, direction)
    key = data.draw(st.sampled_from(sorted(specs)))
    del specs[key]
    in_group = direction is Format.CUSTOM and is_part_of_a_fused_tensor(twin, key)

    with pytest.raises(IncompleteGroupError if in_group else MissingKeyError) as error:
        plan_and_check(twin, specs, direction)

    assert key in str(error.value)


@every_language
@few
@given(data=st.data(), direction=directions)
def test_an_added_foreign_key_is_unknown(language: str, data: st.DataObject, direction) -> None:
    twin = data.draw(twins(language))
    specs = source(twin, direction)
    key = data.draw(st.sampled_from(sorted(specs))) + data.draw(st.sampled_from(["x", ".0", "\n", "_proj"]))
    specs[key] = TensorSpec("F32", (1,))

    with pytest.raises(UnknownKeyError) as error:
        plan_and_check(twin, specs, direction)

    assert key in str(error.value)


@every_language
@few
@given(data=st.data(), direction=directions)
def test_a_renamed_key_is_unknown(language: str, data: st.DataObject, direction) -> None:
    twin = data.draw(twins(language))
    specs = source(twin, direction)
    key = data.draw(st.sampled_from(sorted(specs)))
    position = data.draw(st.integers(0, len(key) - 1))
    # Upper case: no name of either format has it.
    renamed = key[:position] + "X" + key[position + 1 :]
    specs[renamed] = specs.pop(key)

    with pytest.raises(UnknownKeyError) as error:
        plan_and_check(twin, specs, direction)

    assert renamed in str(error.value)


@every_language
@few
@given(data=st.data(), direction=directions)
def test_a_layer_more_than_config_json_says_is_a_contradiction(language: str, data: st.DataObject, direction) -> None:
    twin = data.draw(twins(language))
    specs = source(twin, direction)
    stack = data.draw(
        st.sampled_from(
            [
                "language_model.model.layers.",
                "vision_model.encoder.layers." if direction is Format.HF else "vision_tower.encoder.layer.",
            ]
        )
    )
    first = {key: spec for key, spec in specs.items() if key.startswith(f"{stack}0.")}
    for key, spec in first.items():
        specs[key.replace(f"{stack}0.", f"{stack}3.")] = spec

    with pytest.raises(ContradictionError, match=rf"layers {stack[:-1]}\.\*, but config.json says"):
        plan_and_check(twin, specs, direction)


@every_language
@few
@given(data=st.data())
def test_a_tensor_of_another_shape_is_a_contradiction(language: str, data: st.DataObject) -> None:
    twin = data.draw(twins(language))
    key = data.draw(st.sampled_from(sorted(twin.custom)))
    shape = twin.custom[key].shape
    specs = {**twin.custom, key: TensorSpec("BF16", (*shape, 1))}

    with pytest.raises(ContradictionError) as error:
        plan_and_check(twin, specs, Format.HF)

    assert str(error.value).startswith(f"{key} has shape {[*shape, 1]}, but config.json describes {[*shape]}.")
