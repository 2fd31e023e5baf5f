"""The quantization_config of an output: as the source states it, with the names of the output's modules."""

from typing import Any

import pytest

from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.packing import MXFP4, Packed, Packing, packing_in
from internvl_bridge.metadata.config.quantization import put_quantization, quantization

GATE = "language_model.model.layers.0.mlp.gate"
HF, CUSTOM = Format.HF, Format.CUSTOM
AWQ = {"quant_method": "awq", "bits": 4}
KEPT = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


def packing_of(key: str) -> Packing:
    packing = packing_in([key])
    assert packing is not None
    return packing


def as_(mark: str, *plain: str) -> Packed:
    return Packed(packing_of(f"layer.{mark}"), plain)


@pytest.mark.parametrize(
    ("stated", "mark", "wanted", "skipped"),
    [
        (AWQ, "qweight", HF, {"modules_to_not_convert": KEPT}),
        (AWQ, "qweight", CUSTOM, {"modules_to_not_convert": ["vision_model", "mlp1", "lm_head"]}),
        ({**AWQ, "modules_to_not_convert": ["visual"]}, "qweight", HF, {"modules_to_not_convert": KEPT}),
        ({**AWQ, "modules_to_not_convert": None}, "qweight", HF, {"modules_to_not_convert": KEPT}),
        (
            {**AWQ, "modules_to_not_convert": ["mine", *KEPT]},
            "qweight",
            HF,
            {"modules_to_not_convert": ["mine", *KEPT]},
        ),
        ({"quant_method": "bitsandbytes"}, "SCB", HF, {"llm_int8_skip_modules": KEPT}),
        (
            {"quant_method": "compressed-tensors", "ignore": ["re:.*visual.*"]},
            "weight_scale",
            HF,
            {"ignore": ["re:.*vision_tower.*", "re:.*multi_modal_projector.*", "re:.*lm_head.*"]},
        ),
    ],
)
def test_what_is_not_quantised_is_named_in_the_words_of_the_output(
    stated: dict[str, Any], mark: str, wanted: Format, skipped: dict[str, Any]
) -> None:
    for config in ({"quantization_config": stated}, {"llm_config": {"quantization_config": stated}}):
        assert quantization(config, as_(mark), wanted) == {**stated, **skipped}


def test_layers_that_are_not_quantised_are_named_one_by_one() -> None:
    packed = as_("qweight", GATE)
    lists = {
        wanted: quantization({"quantization_config": "awq"}, packed, wanted)["modules_to_not_convert"]
        for wanted in Format
    }
    assert lists[HF][3:] == ["model.language_model.layers.0.mlp.gate"]
    assert lists[CUSTOM][3:] == [GATE]


@pytest.mark.parametrize(
    ("stated", "packed", "reason"),
    [
        ({**AWQ, "bits": 8}, as_("qweight"), r"says that bits is 8, but the tensors are quantised as AWQ"),
        (
            {"quant_method": "bitsandbytes", "load_in_8bit": False},
            as_("SCB"),
            r"says that load_in_8bit is False, but the tensors",
        ),
        (
            {**AWQ, "group_size": 128},
            Packed(packing_of("layer.qweight"), (), frozenset({64})),
            r"says that group_size is 128, but the tensors",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": {"a": {"targets": ["re:.*proj"]}, "b": 3}},
            as_("weight_scale"),
            r"has the target 're:\.\*proj'\. Only names of classes",
        ),
        ({"quant_method": "fp8", "ignored_layers": ["a"]}, as_("weight_scale_inv"), r"has ignored_layers, which names"),
        (None, as_("qweight"), r"has no quantization_config, but the tensors are quantised as AWQ \('awq'\)"),
        ({"quant_method": "gptq"}, as_("qweight"), r"of method 'gptq', but the tensors are quantised as AWQ"),
        ({"bits": 4}, as_("SCB"), r"of method None, but the tensors are quantised as bitsandbytes of 8 bits"),
        (AWQ, Packed(MXFP4, ()), r"of method 'awq', but the tensors are quantised as MXFP4"),
        (AWQ, None, r"of method 'awq', but the tensors are not quantised"),
    ],
)
def test_a_declaration_that_contradicts_the_tensors_is_refused(stated: Any, packed: Packed | None, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        quantization({"quantization_config": stated}, packed, HF)


def test_two_declarations_must_agree() -> None:
    config = {"quantization_config": AWQ, "text_config": {"quantization_config": {**AWQ, "modules_to_not_convert": []}}}
    assert quantization(config, as_("qweight"), HF)["bits"] == 4
    config["text_config"] = {"quantization_config": {**AWQ, "version": "gemv"}}
    with pytest.raises(UnsupportedModelError, match="has two quantization_configs that differ"):
        quantization(config, as_("qweight"), HF)


def test_a_list_that_names_a_packed_layer_is_not_kept() -> None:
    stated = {**AWQ, "modules_to_not_convert": [*KEPT, "model.language_model.layers.0.mlp.up_proj"]}
    assert quantization({"quantization_config": stated}, as_("qweight"), HF)["modules_to_not_convert"] == KEPT


@pytest.mark.parametrize(
    ("old", "kept"),
    [
        ({**AWQ, "modules_to_not_convert": ["visual"]}, True),
        ({**AWQ, "modules_to_not_convert": ["language_model.model.layers.0.mlp.up_proj"]}, False),
        ({**AWQ, "bits": 8}, False),
        ("awq", False),
        (None, False),
    ],
)
def test_an_old_declaration_stays_if_it_differs_in_names_only(old: Any, kept: bool) -> None:
    wanted = {**AWQ, "modules_to_not_convert": KEPT}
    target: dict[str, Any] = {"llm_config": {"quantization_config": old}}
    put_quantization(target, wanted, implied=None)
    assert target == (
        {"llm_config": {"quantization_config": old}} if kept else target | {"quantization_config": wanted}
    )
    assert ("quantization_config" in target["llm_config"]) is kept


def test_the_modules_that_an_mxfp4_declaration_names_are_the_source_s() -> None:
    stated = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    target: dict[str, Any] = {"quantization_config": {"quant_method": "mxfp4"}}
    put_quantization(target, stated, implied=None)
    assert target == {"quantization_config": stated}
