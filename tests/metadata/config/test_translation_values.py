"""What single values become, and what is filled in where the other format is silent."""

from typing import Any

import pytest
from metadata.describing import changed, custom_config, description

from internvl_bridge.errors import ConfigError, UnsupportedModelError
from internvl_bridge.mapping.families import FAMILIES, GPT_OSS, INTERNLM2, INTERNLM3, PHI3, QWEN2, QWEN3_MOE, Family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.packing import MXFP4, Packed
from internvl_bridge.metadata.config.description import in_old_spelling_throughout
from internvl_bridge.metadata.config.fields import VISION_FIELDS
from internvl_bridge.metadata.config.tiling import tokens_per_tile
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts, to_custom_config, to_hf_config
from internvl_bridge.metadata.config.unsupported import check_expressible

FACTS = TensorFacts(tied=False, packed=None, dtype="bfloat16")
WITH_MXFP4 = TensorFacts(tied=False, packed=Packed(MXFP4, ()), dtype="bfloat16")
TURN_END = 474
TOKENS = TokenFacts(image=590, turn_end=TURN_END)
QWEN2_300M = custom_config("qwen2-300m")
GPTOSS = custom_config("gptoss-300m")
TEXT = {
    "vocab_size": 600,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
EXPERTS = {
    QWEN3_MOE: {"num_experts": 4, "moe_intermediate_size": 40},
    GPT_OSS: {"num_local_experts": 4},
}


def custom_with(base: Any = QWEN2_300M, **values: Any) -> dict[str, Any]:
    return changed(base, None, **values)


def hf_of(custom: Any = QWEN2_300M, facts: TensorFacts = FACTS, old: Any = None) -> dict[str, Any]:
    return to_hf_config(description(custom), facts, TOKENS, None if old is None else description(old))


def home(hf: Any, old: Any, facts: TensorFacts = FACTS, beside: Any = None) -> dict[str, Any]:
    """The custom config for ``hf``, with ``old`` as its old config."""
    model = description(old)
    return to_custom_config(description(hf, twin=model.family), facts, beside or {}, TURN_END, model)[0]


def alone(hf: Any, facts: TensorFacts = FACTS, twin: Family | None = None) -> dict[str, Any]:
    """The custom config for ``hf`` of which nothing else is known."""
    return to_custom_config(description(hf, twin=twin), facts, {}, TURN_END, None)[0]


def test_an_hf_config_is_complete_and_readable_by_both_versions() -> None:
    hf = hf_of()

    assert hf["architectures"] == ["InternVLForConditionalGeneration"]
    assert hf["model_type"] == "internvl"
    assert hf["image_token_id"] == 590
    assert hf["image_seq_length"] == 4
    assert hf["downsample_ratio"] == 0.5
    assert hf["vision_feature_layer"] == -1
    assert hf["vision_feature_select_strategy"] == "default"
    assert hf["projector_hidden_act"] == "gelu"
    assert hf["torch_dtype"] == hf["dtype"] == "bfloat16"
    assert hf["vision_config"]["image_size"] == [56, 56]
    assert hf["vision_config"]["patch_size"] == [14, 14]
    assert hf["text_config"]["model_type"] == "qwen2"
    assert hf["text_config"]["rope_theta"] == 1000000.0
    assert hf["text_config"]["rope_scaling"] is None
    assert hf["text_config"]["rope_parameters"] == {"rope_type": "default", "rope_theta": 1000000.0}
    assert hf["transformers_version"] == "4.52.1"  # the first version that has the class


def test_experts_are_counted_in_the_words_of_both_versions() -> None:
    text = hf_of(custom_config("qwen3moe-6b"))["text_config"]

    assert (text["num_experts"], text["num_local_experts"]) == (4, 4)
    assert "num_experts" not in hf_of(GPTOSS)["text_config"]  # whose class has but one word in every version


@pytest.mark.parametrize(
    ("stated", "turn_end", "written"),
    [
        (2, 474, 474),
        ([2, 3], 474, 474),
        (None, 474, 474),
        (474, 474, 474),
        ([2, 474], 474, [2, 474]),
        (2, None, 2),
        ([2, 3], None, [2, 3]),
        (None, None, None),
    ],
)
def test_a_new_hf_config_ends_a_text_where_a_turn_ends(stated: Any, turn_end: int | None, written: Any) -> None:
    custom = changed(QWEN2_300M, "llm_config", eos_token_id=stated)

    hf = to_hf_config(description(custom), FACTS, TokenFacts(590, turn_end), None)

    assert hf["text_config"]["eos_token_id"] == written
    assert to_custom_config(description(hf), FACTS, {}, turn_end, description(custom))[0] == custom


def test_one_custom_dropout_is_two_in_hf() -> None:
    custom = custom_with()
    custom["vision_config"]["dropout"] = 0.25

    vision = hf_of(custom)["vision_config"]

    assert vision["hidden_dropout_prob"] == vision["projection_dropout"] == 0.25


@pytest.mark.parametrize(
    ("force", "table", "patch", "ratio", "tokens"),
    [
        (448, 448, 14, 0.5, 256),
        (None, 448, 14, 0.5, 256),
        (224, 448, 14, 0.5, 64),
        (448, 224, 14, 0.5, 256),
        (448, 448, 14, 1.0, 1024),
        (448, 448, 28, 0.5, 64),
        (450, 448, 14, 0.5, 256),
    ],
)
def test_tokens_per_tile_follow_the_forced_size(
    force: int | None, table: int, patch: int, ratio: float, tokens: int
) -> None:
    custom = custom_with(force_image_size=force, downsample_ratio=ratio)
    custom["vision_config"] |= {"image_size": table, "patch_size": patch}

    hf = hf_of(custom)

    assert tokens_per_tile(custom) == tokens
    assert hf["image_seq_length"] == tokens
    # The position embeddings on disk are made for the tower's own size; HF interpolates like upstream.
    assert hf["vision_config"]["image_size"] == [table, table]
    assert home(hf, custom) == custom


def test_a_tile_that_becomes_no_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="tiles of 14 pixels, which do not become any token"):
        tokens_per_tile({"force_image_size": 14, "vision_config": {}})


def test_tokens_per_tile_without_any_size_are_those_of_the_default_tower() -> None:
    assert tokens_per_tile({"vision_config": {}}) == 64


@pytest.mark.parametrize("force", [-448, 0, 448.0, "448", True, [448, 448], {}, 2**31], ids=repr)
def test_a_senseless_forced_size_is_refused(force: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has force_image_size .*, a value that no model has there"):
        hf_of(custom_with(force_image_size=force))


@pytest.mark.parametrize("tokens", [-4, 0, 4.0, "4", True, [], None, 2**31], ids=repr)
def test_a_senseless_image_seq_length_is_refused(tokens: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has image_seq_length .*, a value that no model has there"):
        alone(hf_of() | {"image_seq_length": tokens})


@pytest.mark.parametrize("tokens", [2, 3, 5, 255, 257, 2**31 - 1])
def test_tokens_of_no_square_tile_are_refused(tokens: int) -> None:
    hf = hf_of() | {"image_seq_length": tokens}

    with pytest.raises(ConfigError, match=f"has image_seq_length {tokens}, which no square tile of its patches has"):
        alone(hf)
    with pytest.raises(ConfigError, match=f"has image_seq_length {tokens}, which no square tile of its patches has"):
        home(hf, QWEN2_300M)


@pytest.mark.parametrize(
    ("ratio", "patch", "tokens", "size"),
    [(0.5, 14, 256, 448), (0.5, 14, 9, 84), (1, 14, 256, 224), (0.25, 14, 16, 224), (0.5, 28, 256, 896)],
)
def test_the_size_of_a_tile_follows_from_its_tokens(ratio: float, patch: int, tokens: int, size: int) -> None:
    hf = hf_of() | {"image_seq_length": tokens, "downsample_ratio": ratio}

    custom = alone(changed(hf, "vision_config", patch_size=[patch, patch]))

    assert custom["force_image_size"] == size
    assert tokens_per_tile(custom) == tokens


def test_an_image_of_one_patch_makes_no_token_and_is_refused() -> None:
    """HF's processor would be told that a tile is no token at all."""
    custom = changed(QWEN2_300M, "vision_config", image_size=14) | {"force_image_size": None}

    with pytest.raises(ConfigError):
        hf_of(custom)


def test_an_hf_config_that_states_no_sizes_has_the_defaults_of_its_class() -> None:
    hf = {"model_type": "internvl", "vision_config": {}, "text_config": {"model_type": "qwen2", **TEXT}}

    custom = alone(hf)

    assert custom["vision_config"]["image_size"] == 448
    assert custom["vision_config"]["hidden_size"] == 1024
    assert custom["vision_config"]["norm_type"] == "layer_norm"
    assert custom["vision_config"]["qk_normalization"] is False
    assert tokens_per_tile(custom) == 256


@pytest.mark.parametrize("side", [56, [56], [56, 56]], ids=repr)
def test_a_side_of_a_square_is_a_pair_in_hf_and_a_number_in_custom(side: Any) -> None:
    custom = changed(QWEN2_300M, "vision_config", image_size=side)
    hf = changed(hf_of(), "vision_config", image_size=side)

    assert hf_of(custom)["vision_config"]["image_size"] == [56, 56]
    assert alone(hf)["vision_config"]["image_size"] == 56
    assert home(hf_of(custom), custom) == custom
    assert hf_of(alone(hf), old=hf) == hf


SAID_BY_HF = {
    *("architectures", "model_type", "torch_dtype", "llm_config", "vision_config"),
    *("select_layer", "force_image_size", "downsample_ratio", "tie_word_embeddings"),
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_without_an_old_config_the_assumptions_are_named(family: Family) -> None:
    hf = hf_of() | {"text_config": {"model_type": family.hf_model_type, **TEXT, **EXPERTS.get(family, {})}}

    custom, assumed = to_custom_config(description(hf, twin=family), FACTS, {}, TURN_END, None)

    assert set(assumed) == custom.keys() - SAID_BY_HF
    assert {name: custom[name] for name in assumed if name != "template"} == {
        "ps_version": "v2",
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "pad2square": False,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
    }
    templates = {PHI3: "phi3-chat", GPT_OSS: "internvl3_5_gpt_oss"}
    assert custom["template"] == templates.get(family, "internvl2_5")
    assert custom["ps_version"] == "v2"
    assert custom["pad2square"] is False
    assert custom["architectures"] == ["InternVLChatModel"]
    assert custom["model_type"] == "internvl_chat"
    assert custom["llm_config"]["architectures"] == [family.architecture]
    assert custom["llm_config"]["vocab_size"] == 600
    assert custom["torch_dtype"] == "bfloat16"


def test_with_an_old_config_nothing_is_assumed() -> None:
    assert to_custom_config(description(hf_of()), FACTS, {}, TURN_END, description(QWEN2_300M))[1] == ()


BESIDE = {"template": "Hermes-2", "max_dynamic_patch": 40, "auto_map": {"AutoModel": "somebody/model--module.Class"}}


def test_what_files_beside_the_config_tell_is_not_assumed() -> None:
    unassisted, before = to_custom_config(description(hf_of()), FACTS, {}, TURN_END, None)

    custom, assumed = to_custom_config(description(hf_of()), FACTS, BESIDE, TURN_END, None)

    assert custom == unassisted | BESIDE
    assert assumed == tuple(name for name in before if name not in BESIDE)
    assert {"template", "max_dynamic_patch"} <= set(before)


def test_what_files_beside_the_config_tell_wins_over_the_old_config() -> None:
    assert home(hf_of(), QWEN2_300M, beside=BESIDE) == QWEN2_300M | BESIDE


def test_without_an_old_config_every_field_and_flag_is_written() -> None:
    """Also what equals a default of the custom class, of which readers differ."""
    custom = alone(hf_of())

    assert custom["select_layer"] == -1
    assert custom["downsample_ratio"] == 0.5
    assert custom["tie_word_embeddings"] is custom["llm_config"]["tie_word_embeddings"] is False
    assert {field.custom for field in VISION_FIELDS} <= custom["vision_config"].keys()
    assert custom["llm_config"]["rope_scaling"] is None


def test_internlm2_states_its_bias_because_its_class_defaults_to_one() -> None:
    hf = hf_of() | {"text_config": {"model_type": "llama", **TEXT}}

    assert alone(hf, twin=INTERNLM2)["llm_config"]["bias"] is False


@pytest.mark.parametrize("stated", [False, True, None, ...])
def test_a_model_that_was_trained_without_a_cache_generates_with_one(stated: Any) -> None:
    """As InternVL3's llm_config has it: that saved memory in training."""
    custom = changed(QWEN2_300M, "llm_config", use_cache=stated)

    hf = hf_of(custom)

    assert hf["text_config"]["use_cache"] is True
    assert home(hf, custom) == custom
    assert home(changed(hf, "text_config", use_cache=False), custom)["llm_config"]["use_cache"] is False


def test_internlm2_without_a_word_has_biases() -> None:
    custom = changed(custom_config("internlm2-300m"), "llm_config", bias=...)

    assert hf_of(custom)["text_config"]["attention_bias"] is True


@pytest.mark.parametrize("bias", [False, True])
def test_internlm3_has_two_words_for_biases(bias: bool) -> None:
    llm = {"architectures": ["InternLM3ForCausalLM"], **TEXT, "qkv_bias": bias, "bias": bias}
    custom = custom_with(llm_config=llm)

    hf = hf_of(custom)

    assert (hf["text_config"]["attention_bias"], hf["text_config"]["mlp_bias"]) == (bias, bias)
    assert home(hf, custom) == custom
    assert {name: alone(hf, twin=INTERNLM3)["llm_config"][name] for name in ("qkv_bias", "bias")} == {
        "qkv_bias": bias,
        "bias": bias,
    }


SCALING = {"factor": 4.0}
LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_custom_class_gets_the_type_key_that_it_reads(family: Family) -> None:
    rope = {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", **SCALING}}
    text = {"model_type": family.hf_model_type, **TEXT, **EXPERTS.get(family, {}), **rope}

    scaling = alone(hf_of() | {"text_config": text}, twin=family)["llm_config"]["rope_scaling"]

    new = {"qwen3", "qwen3_moe", "gpt_oss"}
    assert scaling == {"rope_type" if family.hf_model_type in new else "type": "linear", **SCALING}


@pytest.mark.parametrize(("family", "name"), [(PHI3, "su"), (QWEN2, "longrope")])
def test_only_phi3_calls_longrope_su(family: Family, name: str) -> None:
    text = {"model_type": family.hf_model_type, **TEXT, "rope_scaling": {"rope_type": "longrope", **LONG}}

    assert alone(hf_of() | {"text_config": text})["llm_config"]["rope_scaling"] == {"type": name, **LONG}


def test_a_gpt_oss_that_does_not_speak_of_scaling_scales_by_its_class_s_default() -> None:
    silent = changed(GPTOSS, "llm_config", rope_scaling=...)
    unscaled = changed(GPTOSS, "llm_config", rope_scaling=None)

    assert hf_of(silent)["text_config"].keys().isdisjoint({"rope_scaling", "rope_parameters"})
    assert "rope_scaling" not in alone(hf_of(silent))["llm_config"]
    assert hf_of(unscaled)["text_config"]["rope_scaling"] == {"rope_type": "default"}  # null is yarn in version 5
    assert hf_of(unscaled)["text_config"]["rope_parameters"] == {"rope_type": "default", "rope_theta": 150000.0}
    assert alone(hf_of(unscaled))["llm_config"]["rope_scaling"] is None
    assert home(hf_of(silent), GPTOSS) == silent
    assert home(hf_of(unscaled), GPTOSS) == unscaled
    assert home(hf_of(GPTOSS), silent) == GPTOSS


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("extra", [{}, {"head_dim": 8}], ids=["usual head", "odd head"])
def test_no_dimension_is_lost_on_the_way_to_custom(family: Family, extra: dict[str, int]) -> None:
    """What the custom class cannot say must be refused, or else its tensors have other shapes than its config."""
    text = {"model_type": family.hf_model_type, **TEXT, **EXPERTS.get(family, {}), **extra}
    hf = description(hf_of() | {"text_config": text}, twin=family)

    try:
        check_expressible(hf)
    except UnsupportedModelError:
        return
    custom, _ = to_custom_config(hf, FACTS, {}, TURN_END, None)

    assert description(custom).dims == hf.dims


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ({"dtype": "float16"}, {"torch_dtype": "float16"}),
        ({"torch_dtype": "float16"}, {"torch_dtype": "float16"}),
        ({"torch_dtype": "float16", "dtype": "bfloat16"}, {"torch_dtype": "float16"}),
        ({"dtype": None}, {}),
        ({"text_config": None}, {"text_config": None}),
    ],
)
def test_the_dtype_is_read_in_either_word(written: dict[str, Any], read: dict[str, Any]) -> None:
    assert in_old_spelling_throughout(written, Format.HF, QWEN2) == read


def test_the_weights_name_the_dtype_where_no_config_does() -> None:
    custom = custom_with()
    del custom["torch_dtype"]
    half = TensorFacts(tied=False, packed=None, dtype="float16")

    hf = hf_of(custom, half)

    assert hf["torch_dtype"] == "float16"
    assert home(hf, custom, half) == custom


QUANTISED = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}


@pytest.mark.parametrize("holder", ["top", "llm"])
def test_the_quantisation_of_mxfp4_experts_is_passed_on(holder: str) -> None:
    custom = custom_with(GPTOSS)
    (custom if holder == "top" else custom["llm_config"])["quantization_config"] = QUANTISED

    hf = hf_of(custom, WITH_MXFP4)

    assert hf["quantization_config"] == QUANTISED
    assert home(hf, custom, WITH_MXFP4) == custom
    assert alone(hf, WITH_MXFP4)["quantization_config"] == QUANTISED
    assert hf_of(custom, WITH_MXFP4, old=hf) == hf


def test_mxfp4_experts_are_declared_even_if_no_config_did() -> None:
    hf = hf_of(GPTOSS, WITH_MXFP4)

    assert hf["quantization_config"] == {"quant_method": "mxfp4"}


def test_plain_experts_are_not_declared_quantised() -> None:
    assert "quantization_config" not in hf_of(GPTOSS)


def test_an_empty_declaration_declares_nothing() -> None:
    assert "quantization_config" not in hf_of(custom_with(GPTOSS, quantization_config={}))


@pytest.mark.parametrize(
    ("quantization", "facts"),
    [(QUANTISED, FACTS), ("mxfp4", FACTS), ({"quant_method": "awq"}, WITH_MXFP4), ("awq", WITH_MXFP4)],
)
def test_a_quantisation_that_contradicts_the_tensors_is_refused(quantization: Any, facts: TensorFacts) -> None:
    custom = custom_with(GPTOSS, quantization_config=quantization)

    with pytest.raises(UnsupportedModelError, match=r"has a quantization_config of method '(mxfp4|awq)'"):
        hf_of(custom, facts)


def test_a_model_dequantised_since_its_conversion_comes_home_unquantised() -> None:
    quantised = custom_with(GPTOSS, quantization_config=QUANTISED)
    hf = hf_of(quantised, WITH_MXFP4)
    del hf["quantization_config"]

    assert home(hf, quantised) == GPTOSS


def test_mxfp4_experts_that_no_config_declares_are_what_the_custom_class_expects() -> None:
    """Its tensors come as they are; a declaration would be a change where there was none."""
    assert "quantization_config" not in home(hf_of(GPTOSS, WITH_MXFP4), GPTOSS, WITH_MXFP4)


def test_a_name_of_a_method_is_a_declaration_too() -> None:
    custom = custom_with(GPTOSS, quantization_config="mxfp4")

    assert hf_of(custom, WITH_MXFP4)["quantization_config"] == "mxfp4"


def test_a_declaration_in_a_section_of_the_old_config_gives_way() -> None:
    old = hf_of(GPTOSS)
    old["text_config"]["quantization_config"] = QUANTISED

    assert hf_of(GPTOSS, old=old) == hf_of(GPTOSS)
