"""Two configs of one model agree about what it computes, or the fields that do not are named."""

from typing import Any

import pytest
from metadata.describing import CUSTOM, STORED_HF, changed, custom_config, description, hf_config

from internvl_bridge.metadata.config.agreement import differing_fields, other_heads
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts, to_hf_config

FACTS = TensorFacts(tied=False, packed=None, dtype="bfloat16")


def hf_of(custom: dict[str, Any]) -> dict[str, Any]:
    return to_hf_config(description(custom), FACTS, TokenFacts(image=590, turn_end=474), None)


def agreed(custom: dict[str, Any], hf: dict[str, Any]) -> dict[str, str]:
    ours = description(custom)
    return differing_fields(ours, description(hf, twin=ours.family))


@pytest.mark.parametrize("name", CUSTOM)
def test_a_translated_config_agrees(name: str):
    custom = custom_config(name)
    assert agreed(custom, hf_of(custom)) == {}


@pytest.mark.parametrize("name", STORED_HF)
def test_what_transformers_wrote_agrees_with_the_custom_config_of_the_same_model(name: str):
    assert agreed(custom_config(name.partition("@")[0]), hf_config(name)) == {}


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("llm_config", {"rope_theta": 5e5}, {"text_config.rope_theta": "500000.0 and 1000000.0"}),
        ("llm_config", {"rms_norm_eps": 1e-5}, {"text_config.rms_norm_eps": "1e-05 and 1e-06"}),
        ("llm_config", {"hidden_act": "gelu"}, {"text_config.hidden_act": "'gelu' and 'silu'"}),
        ("vision_config", {"layer_norm_eps": 1e-5}, {"vision_config.layer_norm_eps": "1e-05 and 1e-06"}),
        (None, {"select_layer": -2}, {"vision_feature_layer": "-2 and -1"}),
        ("llm_config", {"use_sliding_window": True}, {"text_config.use_sliding_window": "True and False"}),
        # What a model does not use, what it does not compute with, and what only one side states.
        ("llm_config", {"use_sliding_window": False, "sliding_window": 77, "max_window_layers": 1}, {}),
        ("llm_config", {"eos_token_id": 3, "initializer_range": 0.5, "max_position_embeddings": 99}, {}),
        ("llm_config", {"rms_norm_eps": ...}, {}),
        ("llm_config", {"partial_rotary_factor": 0.5}, {}),
        # The same in other words.
        ("llm_config", {"hidden_act": "swish", "head_dim": None, "use_sliding_window": None}, {}),
        (None, {"select_layer": 2}, {}),
    ],
)
def test_fields_that_change_what_a_model_computes(
    section: str | None, values: dict[str, Any], expected: dict[str, str]
):
    custom = custom_config("qwen2-300m")
    hf = hf_of(changed(custom, "llm_config", use_sliding_window=False, sliding_window=None))
    hf["text_config"].pop("partial_rotary_factor", None)
    assert agreed(changed(custom, section, **values), hf) == expected


def test_two_of_one_format_are_compared_alike():
    custom = custom_config("qwen3-300m")
    other = changed(custom, "llm_config", rope_theta=5.0)
    assert list(differing_fields(description(custom), description(other))) == ["text_config.rope_theta"]


@pytest.mark.parametrize(
    ("section", "values", "words"),
    [
        ("llm_config", {}, None),
        ("llm_config", {"num_attention_heads": 2, "num_key_value_heads": 1}, "2 heads (1 of keys and values) of 32"),
        ("llm_config", {"hidden_size": 128, "num_attention_heads": 8, "num_key_value_heads": 4}, None),
        ("vision_config", {"num_attention_heads": 2}, "2 heads in the vision tower"),
    ],
)
def test_other_heads_of_the_same_shapes_are_noticed(section: str, values: dict[str, Any], words: str | None):
    custom = custom_config("internlm2-300m")
    found = other_heads(description(changed(custom, section, **values)), description(custom))
    assert found is None if words is None else found is not None and words in found
