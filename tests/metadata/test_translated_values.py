"""What single values become, and what is filled in where the other format is silent."""

from copy import deepcopy
from typing import Any

import pytest
from support import DATA

from internvl_bridge.errors import ConfigError, UnsupportedModelError
from internvl_bridge.mapping.families import FAMILIES, GPT_OSS, INTERNLM2, INTERNLM3, PHI3, QWEN2, Family
from internvl_bridge.metadata.config_file import read_config
from internvl_bridge.metadata.translation import (
    TensorFacts,
    in_old_hf_spelling,
    to_custom_config,
    to_hf_config,
    tokens_per_tile,
)

FACTS = TensorFacts(tied=False, mxfp4=False, dtype="bfloat16")
MXFP4 = TensorFacts(tied=False, mxfp4=True, dtype="bfloat16")
QWEN2_300M = read_config(DATA / "custom" / "qwen2-300m").values
GPTOSS = read_config(DATA / "custom" / "gptoss-300m").values


def custom_with(base: Any = QWEN2_300M, **values: Any) -> dict[str, Any]:
    return deepcopy(dict(base)) | values


def hf_of(custom: Any = QWEN2_300M, family: Family = QWEN2, facts: TensorFacts = FACTS) -> dict[str, Any]:
    return to_hf_config(custom, family, facts, 590, old=None)


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
        (0, 448, 14, 0.5, 256),
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
    assert to_custom_config(hf, QWEN2, FACTS, old=custom)[0] == custom


def test_tokens_per_tile_without_any_size_are_those_of_the_default_tower() -> None:
    assert tokens_per_tile({"vision_config": {}}) == 64


@pytest.mark.parametrize("force", [-448, 448.0, "448", True, [448, 448], {}])
def test_a_senseless_forced_size_is_refused(force: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has force_image_size .*, which is not a number of pixels"):
        hf_of(custom_with(force_image_size=force))


@pytest.mark.parametrize("tokens", [-4, 4.0, "4", True, []])
def test_a_senseless_image_seq_length_is_refused(tokens: Any) -> None:
    with pytest.raises(ConfigError, match=r"^config\.json has image_seq_length"):
        to_custom_config(hf_of() | {"image_seq_length": tokens}, QWEN2, FACTS, old=None)


def test_an_hf_config_that_states_no_sizes_has_the_defaults_of_its_class() -> None:
    hf = {"model_type": "internvl", "vision_config": {}, "text_config": {"model_type": "qwen2"}}

    custom, _ = to_custom_config(hf, QWEN2, FACTS, old=None)

    assert custom["vision_config"]["image_size"] == 448
    assert custom["vision_config"]["hidden_size"] == 1024
    assert custom["vision_config"]["norm_type"] == "layer_norm"
    assert custom["vision_config"]["qk_normalization"] is False
    assert tokens_per_tile(custom) == 256


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_without_a_complement_the_assumptions_are_named(family: Family) -> None:
    hf = hf_of() | {"text_config": {"model_type": family.hf_model_type, "vocab_size": 600}}

    custom, assumed = to_custom_config(hf, family, FACTS, old=None)

    assert assumed == (
        "template",
        "dynamic_image_size",
        "use_thumbnail",
        "min_dynamic_patch",
        "max_dynamic_patch",
    )
    assert {name: custom[name] for name in assumed[1:]} == {
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
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


def test_internlm2_states_its_bias_because_its_class_defaults_to_one() -> None:
    hf = hf_of() | {"text_config": {"model_type": "llama", "vocab_size": 600}}

    custom, _ = to_custom_config(hf, INTERNLM2, FACTS, old=None)

    assert custom["llm_config"]["bias"] is False


def test_internlm2_without_a_word_has_biases() -> None:
    custom = custom_with(read_config(DATA / "custom" / "internlm2-300m").values)
    del custom["llm_config"]["bias"]

    assert hf_of(custom, INTERNLM2)["text_config"]["attention_bias"] is True


@pytest.mark.parametrize("bias", [False, True])
def test_internlm3_has_two_words_for_biases(bias: bool) -> None:
    custom = custom_with()
    custom["llm_config"] = {"architectures": ["InternLM3ForCausalLM"], "qkv_bias": bias, "bias": bias}

    text = hf_of(custom, INTERNLM3)["text_config"]

    assert (text["attention_bias"], text["mlp_bias"]) == (bias, bias)
    assert to_custom_config({**hf_of(), "text_config": text}, INTERNLM3, FACTS, old=custom)[0] == custom


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
    assert in_old_hf_spelling(written) == read


def test_the_weights_name_the_dtype_where_no_config_does() -> None:
    custom = custom_with()
    del custom["torch_dtype"]
    half = TensorFacts(tied=False, mxfp4=False, dtype="float16")

    hf = hf_of(custom, facts=half)

    assert hf["torch_dtype"] == "float16"
    assert to_custom_config(hf, QWEN2, half, old=custom)[0] == custom


QUANTISED = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}


@pytest.mark.parametrize("holder", ["top", "llm"])
def test_the_quantisation_of_mxfp4_experts_is_passed_on(holder: str) -> None:
    custom = custom_with(GPTOSS)
    (custom if holder == "top" else custom["llm_config"])["quantization_config"] = QUANTISED

    hf = hf_of(custom, GPT_OSS, MXFP4)

    assert hf["quantization_config"] == QUANTISED
    assert to_custom_config(hf, GPT_OSS, MXFP4, old=custom)[0] == custom
    assert to_custom_config(hf, GPT_OSS, MXFP4, old=None)[0]["quantization_config"] == QUANTISED
    assert to_hf_config(custom, GPT_OSS, MXFP4, 590, old=hf) == hf


def test_mxfp4_experts_are_declared_even_if_no_config_did() -> None:
    hf = hf_of(custom_with(GPTOSS), GPT_OSS, MXFP4)

    assert hf["quantization_config"] == {"quant_method": "mxfp4"}


def test_plain_experts_are_not_declared_quantised() -> None:
    assert "quantization_config" not in hf_of(custom_with(GPTOSS), GPT_OSS)


def test_an_empty_declaration_declares_nothing() -> None:
    assert "quantization_config" not in hf_of(custom_with(GPTOSS, quantization_config={}), GPT_OSS)


@pytest.mark.parametrize(
    ("quantization", "facts"),
    [(QUANTISED, FACTS), ("mxfp4", FACTS), ({"quant_method": "awq"}, MXFP4), ("awq", MXFP4)],
)
def test_a_quantisation_that_contradicts_the_tensors_is_refused(quantization: Any, facts: TensorFacts) -> None:
    custom = custom_with(GPTOSS, quantization_config=quantization)

    with pytest.raises(UnsupportedModelError, match=r"has a quantization_config of method '(mxfp4|awq)'"):
        hf_of(custom, GPT_OSS, facts)


def test_a_model_dequantised_since_its_conversion_comes_home_unquantised() -> None:
    quantised = custom_with(GPTOSS, quantization_config=QUANTISED)
    hf = hf_of(quantised, GPT_OSS, MXFP4)
    del hf["quantization_config"]

    back, _ = to_custom_config(hf, GPT_OSS, FACTS, old=quantised)

    assert not back.get("quantization_config")
