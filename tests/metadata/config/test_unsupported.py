"""What one format can say and the other cannot is refused before anything is written."""

from typing import Any

import pytest
from metadata.describing import CUSTOM, STORED_HF, changed, custom_config, description, hf_config
from support import DATA

from internvl_bridge.errors import ConfigError, UnsupportedModelError
from internvl_bridge.mapping.families import INTERNLM2, INTERNLM3, INTERNLM3_GROUPED, LLAMA, Family
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.config.unsupported import check_expressible

QWEN2 = custom_config("qwen2-300m")
HF = hf_config("qwen3-300m-tied@5.4.0")
LLAMA_HF = changed(HF, "text_config", model_type="llama")


def check(values: dict[str, Any], twin: Family | None = None) -> None:
    check_expressible(description(values, twin=twin))


@pytest.mark.parametrize("path", sorted(DATA.glob("*/*/config.json")), ids=lambda path: path.parent.name)
def test_every_stored_config_is_expressible(path: Any) -> None:
    check_expressible(describe(read_config(path.parent)))


@pytest.mark.parametrize("version", ["v1", "v3", None, 2, ["v2"], {}])
def test_a_pixel_shuffle_other_than_v2_is_refused(version: Any) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        check(changed(QWEN2, None, ps_version=version))

    assert f"has ps_version {version!r}: the pixel shuffle of v1" in error.value.reason
    assert "(by default)" not in error.value.reason


def test_no_word_about_the_pixel_shuffle_means_v1() -> None:
    with pytest.raises(UnsupportedModelError, match=r"has ps_version 'v1' \(by default\): "):
        check(changed(QWEN2, None, ps_version=...))


@pytest.mark.parametrize(("smallest", "largest"), [(2, 1), (7, 6), (40, 12)])
def test_fewer_tiles_at_most_than_at_least_are_refused(smallest: int, largest: int) -> None:
    with pytest.raises(ConfigError, match=f"has min_dynamic_patch {smallest}, but max_dynamic_patch {largest}"):
        check(changed(QWEN2, None, min_dynamic_patch=smallest, max_dynamic_patch=largest))


def test_without_a_word_there_are_at_most_six_tiles() -> None:
    with pytest.raises(ConfigError, match="has min_dynamic_patch 7, but max_dynamic_patch 6"):
        check(changed(QWEN2, None, min_dynamic_patch=7, max_dynamic_patch=...))


@pytest.mark.parametrize("tiling", [{"min_dynamic_patch": 12}, {"dynamic_image_size": False, "min_dynamic_patch": 40}])
def test_a_number_of_tiles_that_can_be_met_is_accepted(tiling: dict[str, Any]) -> None:
    check(changed(QWEN2, None, **tiling))


@pytest.mark.parametrize("types", [[], ["full_attention"], ["full_attention"] * 3])
def test_a_type_for_every_layer_and_no_more_is_demanded(types: list[str]) -> None:
    for config, section in ((QWEN2, "llm_config"), (HF, "text_config")):
        with pytest.raises(ConfigError, match=f"has {len(types)} layer_types, but the language model has 2 layers"):
            check(changed(config, section, layer_types=types))
        for accepted in (None, ..., ["full_attention", "sliding_attention"]):
            check(changed(config, section, layer_types=accepted))


@pytest.mark.parametrize("layer", [-3, -2, -1, 0, 1, 2])
def test_any_one_layer_can_be_selected(layer: int) -> None:
    """A tower of two layers has three hidden states: its input, and what each layer makes."""
    check(changed(QWEN2, None, select_layer=layer))
    check(changed(HF, None, vision_feature_layer=layer))


@pytest.mark.parametrize("layer", [-4, 3, 12])
def test_a_layer_beyond_the_tower_is_refused(layer: int) -> None:
    with pytest.raises(UnsupportedModelError, match=f"select_layer {layer}, but the vision tower has 2 layers"):
        check(changed(QWEN2, None, select_layer=layer))
    with pytest.raises(UnsupportedModelError, match=f"feature_layer {layer}, but the vision tower has 2 layers"):
        check(changed(HF, None, vision_feature_layer=layer))


@pytest.mark.parametrize("config", [QWEN2, HF], ids=["custom", "hf"])
def test_without_a_word_the_last_layer_is_selected(config: dict[str, Any]) -> None:
    name = "select_layer" if config is QWEN2 else "vision_feature_layer"

    check(changed(config, None, **{name: ...}))


@pytest.mark.parametrize("layer", [[-1, -2], "-1", None, -1.0, True])
def test_several_layers_or_none_are_refused(layer: Any) -> None:
    with pytest.raises(ConfigError, match=r"has select_layer .*, a value that no model has there"):
        check(changed(QWEN2, None, select_layer=layer))
    with pytest.raises(ConfigError, match=r"has vision_feature_layer .*, a value that no model has there"):
        check(changed(HF, None, vision_feature_layer=layer))


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        (None, "projector_hidden_act", "relu"),
        (None, "vision_feature_select_strategy", "full"),
        ("vision_config", "model_type", "siglip_vision_model"),
        ("vision_config", "use_absolute_position_embeddings", False),
        ("vision_config", "use_mask_token", True),
        ("vision_config", "use_mean_pooling", False),
    ],
)
def test_hf_settings_that_the_custom_classes_lack_are_refused(section: str | None, name: str, value: Any) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        check(changed(HF, section, **{name: value}))

    assert f"config.json has {name} {value!r}; the custom format knows only" in error.value.reason


def test_hf_settings_that_are_not_stated_are_the_defaults() -> None:
    check({"model_type": "internvl", "vision_config": {}, "text_config": HF["text_config"]})


@pytest.mark.parametrize("architectures", [None, []])
def test_an_hf_config_without_architectures_is_expressible(architectures: Any) -> None:
    """As InternVLConfig().save_pretrained writes it, without any model."""
    check(changed(HF, None, architectures=architectures))


@pytest.mark.parametrize(("qkv_bias", "bias"), [(True, False), (False, True), (True, ...), (..., True)])
@pytest.mark.parametrize("keys", [(), ("language_model.model.layers.0.attention.wqkv.weight",)], ids=["split", "wqkv"])
def test_an_internlm3_of_two_minds_about_biases_is_refused(qkv_bias: Any, bias: Any, keys: tuple[str, ...]) -> None:
    custom = changed(QWEN2, "llm_config", architectures=["InternLM3ForCausalLM"], qkv_bias=False, bias=False)

    with pytest.raises(UnsupportedModelError, match=r"InternLM3( \(wqkv\))? whose qkv_bias and bias differ"):
        check_expressible(description(changed(custom, "llm_config", qkv_bias=qkv_bias, bias=bias), keys))


@pytest.mark.parametrize("biases", [{}, {"qkv_bias": False}, {"qkv_bias": True, "bias": True}])
def test_an_internlm3_of_one_mind_is_accepted(biases: dict[str, bool]) -> None:
    check(changed(QWEN2, "llm_config", architectures=["InternLM3ForCausalLM"], **biases))


@pytest.mark.parametrize("twin", [INTERNLM3, INTERNLM3_GROUPED], ids=lambda family: family.name)
@pytest.mark.parametrize(("attention", "mlp"), [(True, False), (False, True)])
def test_a_llama_of_two_minds_about_biases_is_no_internlm3(*, attention: bool, mlp: bool, twin: Family) -> None:
    llama = changed(LLAMA_HF, "text_config", attention_bias=attention, mlp_bias=mlp)

    with pytest.raises(UnsupportedModelError, match=r"InternLM3( \(wqkv\))? whose qkv_bias and bias differ"):
        check(llama, twin)
    check(llama, LLAMA)


@pytest.mark.parametrize("twin", [LLAMA, INTERNLM2, INTERNLM3], ids=lambda family: family.name)
def test_a_llama_without_biases_may_be_any(twin: Family) -> None:
    check(changed(LLAMA_HF, "text_config", attention_bias=False, mlp_bias=False, head_dim=16), twin)


def test_a_llama_whose_heads_have_a_size_of_their_own_is_not_an_internlm2() -> None:
    llama = changed(LLAMA_HF, "text_config", attention_bias=False, mlp_bias=False, head_dim=24)

    with pytest.raises(UnsupportedModelError, match=r"has head_dim 24, but the heads of InternLM2 have 16\."):
        check(llama, INTERNLM2)
    check(llama, LLAMA)


LONGROPE = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    ("model_type", "scaling", "fits"),
    [
        ("llama", None, True),
        ("llama", {"rope_type": "dynamic", "factor": 2.0}, True),
        ("llama", {**LONGROPE, "factor": 2.0}, True),
        ("llama", LONGROPE, False),
        ("phi3", LONGROPE, True),
        ("phi3", {**LONGROPE, "factor": 2.0}, False),
        ("phi3", {"rope_type": "linear", "factor": 2.0}, False),
    ],
)
def test_a_scaling_of_rotary_embeddings_must_load_everywhere(model_type: str, scaling: Any, *, fits: bool) -> None:
    values = {"rope_scaling": scaling, "rope_parameters": ..., "attention_bias": False}
    config = changed(HF, "text_config", model_type=model_type, **values)
    if fits:
        check(config)
    else:
        with pytest.raises(UnsupportedModelError, match=r"rope_scaling .*, which HF's (Llama|Phi-3) cannot load"):
            check(config)


@pytest.mark.parametrize(
    ("top", "inner", "may_be_tied"),
    [
        (..., ..., False),
        (..., False, False),
        (False, ..., False),
        (False, False, False),
        (None, None, False),
        (None, True, True),
        (True, ..., True),
        (..., True, True),
        (True, False, True),
        (False, True, True),
        (True, True, True),
    ],
)
@pytest.mark.parametrize(
    ("config", "section"),
    [(CUSTOM["qwen2-300m"].values, "llm_config"), (STORED_HF["qwen2-300m@state-dict"].values, "text_config")],
    ids=["custom", "hf"],
)
def test_only_a_flag_at_either_level_ties(
    config: Any, section: str, top: Any, inner: Any, *, may_be_tied: bool
) -> None:
    flagged = changed(config, None, tie_word_embeddings=top)

    assert description(changed(flagged, section, tie_word_embeddings=inner)).may_be_tied is may_be_tied
