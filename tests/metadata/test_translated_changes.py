"""What was changed on the other side wins over what the complement remembers."""

from copy import deepcopy
from typing import Any

import pytest
from support import DATA

from internvl_bridge.mapping.families import GPT_OSS, INTERNLM2, PHI3, QWEN2, QWEN3_MOE, Family
from internvl_bridge.metadata.config_file import read_config
from internvl_bridge.metadata.translation import TensorFacts, to_custom_config, to_hf_config

FACTS = TensorFacts(tied=False, mxfp4=False, dtype="bfloat16")


def custom_config(name: str) -> dict[str, Any]:
    return deepcopy(dict(read_config(DATA / "custom" / name).values))


def changed(config: dict[str, Any], section: str | None, **values: Any) -> dict[str, Any]:
    copy = deepcopy(config)
    (copy if section is None else copy[section]).update(values)
    return copy


@pytest.mark.parametrize(
    ("name", "family", "section", "hf", "custom"),
    [
        ("qwen2-300m", QWEN2, "text_config", {"vocab_size": 640}, {"vocab_size": 640}),
        ("qwen2-300m", QWEN2, "text_config", {"rope_theta": 5e6}, {"rope_theta": 5e6}),
        ("qwen2-300m", QWEN2, "text_config", {"num_hidden_layers": 1}, {"num_hidden_layers": 1}),
        ("qwen2-300m", QWEN2, "text_config", {"eos_token_id": [2, 3]}, {"eos_token_id": [2, 3]}),
        (
            "qwen2-300m",
            QWEN2,
            "text_config",
            {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        ),
        ("internlm2-300m", INTERNLM2, "text_config", {"rope_scaling": None}, {"rope_scaling": None}),
        ("internlm2-300m", INTERNLM2, "text_config", {"attention_bias": True}, {"bias": True}),
        ("qwen3moe-6b", QWEN3_MOE, "text_config", {"num_experts": 2}, {"num_experts": 2}),
        ("gptoss-300m", GPT_OSS, "text_config", {"num_local_experts": 2}, {"num_local_experts": 2}),
        ("qwen2-300m", QWEN2, "vision_config", {"attention_bias": False}, {"qkv_bias": False}),
        ("qwen2-300m", QWEN2, "vision_config", {"use_qk_norm": True}, {"qk_normalization": True}),
        ("qwen2-300m", QWEN2, "vision_config", {"hidden_dropout_prob": 0.1}, {"dropout": 0.1}),
        ("qwen2-300m", QWEN2, "vision_config", {"image_size": [112, 112]}, {"image_size": 112}),
        ("qwen2-300m", QWEN2, None, {"vision_feature_layer": -2}, {"select_layer": -2}),
        ("qwen2-300m", QWEN2, None, {"image_seq_length": 16}, {"force_image_size": 112}),
    ],
)
def test_a_value_changed_in_the_hf_config_comes_back_and_nothing_else_does(
    name: str, family: Family, section: str | None, hf: dict[str, Any], custom: dict[str, Any]
) -> None:
    original = custom_config(name)
    before = deepcopy(original)
    edited = changed(to_hf_config(original, family, FACTS, 590, old=None), section, **hf)

    back, _ = to_custom_config(edited, family, FACTS, old=original)

    sections = {"text_config": "llm_config", "vision_config": "vision_config", None: None}
    assert back == changed(before, sections[section], **custom)


def as_version_5(hf: dict[str, Any]) -> dict[str, Any]:
    """The HF config in the words of transformers 5."""
    result = deepcopy(hf)
    result.pop("torch_dtype", None)
    text = result["text_config"]
    scaling = text.pop("rope_scaling", None) or {"rope_type": "default"}
    text["rope_parameters"] = {"rope_theta": text.pop("rope_theta"), **scaling}
    if "partial_rotary_factor" in text:
        text["rope_parameters"]["partial_rotary_factor"] = text.pop("partial_rotary_factor")
    if "num_experts" in text:
        text["num_local_experts"] = text.pop("num_experts")
    return result


def test_a_base_changed_in_the_custom_config_reaches_both_versions_of_transformers() -> None:
    custom = custom_config("qwen2-300m")
    old = as_version_5(to_hf_config(custom, QWEN2, FACTS, 590, old=None))

    hf = to_hf_config(changed(custom, "llm_config", rope_theta=5e6), QWEN2, FACTS, 590, old=old)

    # Left alone, rope_parameters would contradict rope_theta, and transformers 5 would obey it.
    assert hf["text_config"]["rope_theta"] == 5e6
    assert "rope_parameters" not in hf["text_config"]
    assert hf["text_config"]["rope_scaling"] is None


def test_a_scaling_changed_in_the_custom_config_keeps_the_base() -> None:
    custom = custom_config("qwen2-300m")
    old = as_version_5(to_hf_config(custom, QWEN2, FACTS, 590, old=None))
    scaled = changed(custom, "llm_config", rope_scaling={"type": "dynamic", "factor": 4.0})

    text = to_hf_config(scaled, QWEN2, FACTS, 590, old=old)["text_config"]

    assert text["rope_theta"] == 1000000.0
    assert text["rope_scaling"] == {"rope_type": "dynamic", "factor": 4.0}
    assert "rope_parameters" not in text


def test_a_base_that_the_custom_config_leaves_open_survives_a_changed_scaling() -> None:
    custom = custom_config("qwen2-300m")
    old = as_version_5(to_hf_config(custom, QWEN2, FACTS, 590, old=None))
    del custom["llm_config"]["rope_theta"]
    scaled = changed(custom, "llm_config", rope_scaling={"type": "dynamic", "factor": 4.0})

    text = to_hf_config(scaled, QWEN2, FACTS, 590, old=old)["text_config"]

    assert text["rope_theta"] == 1000000.0


def test_a_changed_base_keeps_the_partial_rotation() -> None:
    custom = changed(custom_config("phi3-300m"), "llm_config", partial_rotary_factor=0.5)
    old = as_version_5(to_hf_config(custom, PHI3, FACTS, 590, old=None))
    assert old["text_config"]["rope_parameters"]["partial_rotary_factor"] == 0.5

    text = to_hf_config(changed(custom, "llm_config", rope_theta=5e6), PHI3, FACTS, 590, old=old)["text_config"]

    assert text["rope_theta"] == 5e6
    assert text["partial_rotary_factor"] == 0.5


def test_experts_counted_anew_leave_one_count() -> None:
    custom = custom_config("qwen3moe-6b")
    old = as_version_5(to_hf_config(custom, QWEN3_MOE, FACTS, 590, old=None))

    text = to_hf_config(changed(custom, "llm_config", num_experts=2), QWEN3_MOE, FACTS, 590, old=old)["text_config"]

    assert text["num_experts"] == 2
    assert "num_local_experts" not in text


@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3moe-6b", "gptoss-300m", "internlm2-300m", "phi3-300m"])
def test_without_a_change_the_words_of_version_5_stay(name: str) -> None:
    custom = custom_config(name)
    families = {
        "qwen2-300m": QWEN2,
        "qwen3moe-6b": QWEN3_MOE,
        "gptoss-300m": GPT_OSS,
        "internlm2-300m": INTERNLM2,
        "phi3-300m": PHI3,
    }
    old = as_version_5(to_hf_config(custom, families[name], FACTS, 590, old=None))

    assert to_hf_config(custom, families[name], FACTS, 590, old=old) == old


def test_a_dtype_changed_in_the_custom_config_is_written_in_both_words() -> None:
    custom = custom_config("qwen2-300m")
    old = to_hf_config(custom, QWEN2, FACTS, 590, old=None)

    hf = to_hf_config(custom | {"torch_dtype": "float16"}, QWEN2, FACTS, 590, old=old)

    assert (hf["torch_dtype"], hf["dtype"]) == ("float16", "float16")


def test_a_changed_dtype_comes_back_at_every_level_that_states_one() -> None:
    custom = custom_config("qwen2-300m")
    hf = to_hf_config(custom, QWEN2, FACTS, 590, old=None) | {"torch_dtype": "float32", "dtype": "float32"}

    back, _ = to_custom_config(hf, QWEN2, FACTS, old=custom)

    assert custom["torch_dtype"] == custom["llm_config"]["torch_dtype"] == "bfloat16"
    assert back["torch_dtype"] == "float32"
    assert back["llm_config"]["torch_dtype"] == back["vision_config"]["torch_dtype"] == "float32"
    assert "dtype" not in back


def test_another_image_token_wins() -> None:
    custom = custom_config("qwen2-300m")
    old = to_hf_config(custom, QWEN2, FACTS, 590, old=None)

    assert to_hf_config(custom, QWEN2, FACTS, 591, old=old) == old | {"image_token_id": 591}


@pytest.mark.parametrize("tied", [False, True])
def test_the_tensors_decide_about_tying_at_both_levels(tied: bool) -> None:
    custom = custom_config("qwen2-300m")
    facts = TensorFacts(tied=tied, mxfp4=False, dtype="bfloat16")

    hf = to_hf_config(custom, QWEN2, facts, 590, old=None)
    back, _ = to_custom_config(hf, QWEN2, facts, old=custom)

    for section in (hf, hf["text_config"], back, back["llm_config"]):
        assert section["tie_word_embeddings"] is tied


def test_an_hf_model_untied_since_overrules_its_complement() -> None:
    custom = changed(custom_config("qwen2-300m"), None, tie_word_embeddings=True)
    custom["llm_config"]["tie_word_embeddings"] = True
    hf = to_hf_config(custom, QWEN2, FACTS, 590, old=None)

    back, _ = to_custom_config(hf, QWEN2, FACTS, old=custom)

    assert back["tie_word_embeddings"] is False
    assert back["llm_config"]["tie_word_embeddings"] is False
