"""Rotary embeddings and expert counts: what transformers 4 reads write means the same."""

from typing import Any

import pytest

from internvl_bridge.errors import ConfigError
from internvl_bridge.mapping.families import QWEN2, Family, default_family
from internvl_bridge.mapping.rope_scaling import canonical_scaling
from internvl_bridge.metadata.config import rope


def family_of(text_config: dict[str, Any]) -> Family:
    return default_family(text_config.get("model_type", "")) or QWEN2


def in_old_spelling(text_config: dict[str, Any]) -> dict[str, Any]:
    return rope.in_old_spelling(text_config, family_of(text_config))


def in_both_spellings(text_config: dict[str, Any]) -> dict[str, Any]:
    return rope.in_both_spellings(text_config, family_of(text_config).rope)


YARN = {"factor": 32.0, "beta_fast": 32.0, "truncate": False}
LONG = {"short_factor": [1.0, 1.5], "long_factor": [2.0, 3]}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (
            {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
            {"rope_theta": 1e6, "rope_scaling": None},
        ),
        (
            {
                "rope_parameters": {
                    "rope_theta": 1e6,
                    "rope_type": "dynamic",
                    "type": "dynamic",
                    "factor": 2.0,
                }
            },
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
        ),
        (
            {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rope_type": "default"}},
            {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rope_scaling": None},
        ),
        ({"rope_parameters": {"rope_theta": 1e4}}, {"rope_theta": 1e4, "rope_scaling": None}),
        (
            {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}},
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        ),
        (
            {
                "model_type": "phi3",
                "original_max_position_embeddings": 256,
                "rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 256, **LONG},
            },
            {
                "model_type": "phi3",
                "original_max_position_embeddings": 256,
                "rope_scaling": {"rope_type": "longrope", **LONG},
            },
        ),
        ({"rope_theta": 1e6}, {"rope_theta": 1e6}),
        ({"rope_theta": 1e6, "rope_scaling": None}, {"rope_theta": 1e6, "rope_scaling": None}),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 3.0}},
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 3.0}},
        ),
        ({"rope_parameters": None, "rope_theta": 1e6}, {"rope_theta": 1e6}),
        ({}, {}),
    ],
    ids=[
        "v5",
        "v5 scaled",
        "v5 partial",
        "v5 without a type",
        "v5 llama3",
        "v5 Phi-3",
        "v4 base",
        "v4",
        "v4 scaled",
        "v5 unset",
        "silent",
    ],
)
def test_both_versions_are_read_as_version_4(written: dict[str, Any], meant: dict[str, Any]) -> None:
    before = repr(written)

    assert in_old_spelling(written) == meant
    assert in_old_spelling(meant) == meant
    assert repr(written) == before


@pytest.mark.parametrize("scaling", [None, {"type": "yarn", **YARN}, {"rope_type": "yarn", **YARN}])
def test_a_config_in_both_spellings_may_agree(scaling: Any) -> None:
    kind = scaling or {"rope_type": "default"}
    union = {
        "rope_theta": 5.0,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": 5.0, **kind},
    }

    assert in_old_spelling(union) == {"rope_theta": 5.0, "rope_scaling": canonical_scaling(scaling)}


def test_a_context_length_at_two_levels_does_not_rob_llama3_of_its_own() -> None:
    """transformers 5 puts the one of the upper level below; llama3 is not defined without it."""
    written = {
        "original_max_position_embeddings": 8192,
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3},
    }

    assert in_old_spelling(written)["rope_scaling"] == {"rope_type": "llama3", **LLAMA3}


def test_a_context_length_said_three_times_is_no_contradiction() -> None:
    scaling = {"rope_type": "yarn", "original_max_position_embeddings": 16, **YARN}
    written = {"original_max_position_embeddings": 16, "rope_scaling": scaling, "rope_parameters": scaling}

    assert in_old_spelling(written)["rope_scaling"] == scaling


@pytest.mark.parametrize(
    ("union", "name"),
    [
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}, "rope_theta"),
        (
            {"partial_rotary_factor": 1.0, "rope_parameters": {"partial_rotary_factor": 0.5}},
            "partial_rotary_factor",
        ),
        (
            {
                "rope_scaling": {"type": "linear", "factor": 2.0},
                "rope_parameters": {"rope_type": "linear", "factor": 4.0},
            },
            "rope_scaling",
        ),
        (
            {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
            "rope_scaling",
        ),
        (
            {"rope_scaling": None, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "rope_scaling",
        ),
        (
            {"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_type": "linear", "factor": 2.0}},
            "rope_scaling",
        ),
    ],
)
def test_a_config_that_says_two_things_is_refused(union: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"text_config says twice what {name} is: "):
        in_old_spelling(union)


def test_both_spellings_say_the_same() -> None:
    linear, parts = {"rope_type": "linear", "factor": 2.0}, {"rope_theta": 1e6, "partial_rotary_factor": 0.5}

    written = in_both_spellings({"model_type": "llama", "hidden_size": 64, **parts, "rope_scaling": linear})

    assert written == {**parts, "rope_scaling": linear, "rope_parameters": {**linear, **parts}}
    assert in_old_spelling(written) == {**parts, "rope_scaling": linear}


def test_no_scaling_is_null_for_version_4_and_default_for_version_5() -> None:
    written = in_both_spellings({"model_type": "llama", "rope_theta": 1e6, "rope_scaling": None})

    assert written == {
        "rope_theta": 1e6,
        "rope_scaling": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
    }


def test_gpt_oss_without_scaling_says_so_to_version_4_in_words() -> None:
    """Its class takes null for the scaling that it has when nothing is said."""
    written = in_both_spellings({"model_type": "gpt_oss", "rope_theta": 1e6, "rope_scaling": None})

    assert written["rope_scaling"] == {"rope_type": "default"}
    assert written["rope_parameters"] == {"rope_type": "default", "rope_theta": 1e6}


def test_a_scaling_that_is_left_to_the_class_is_left_to_it_in_both_versions() -> None:
    """Beside ``rope_parameters`` without a type, transformers 5 would scale nothing."""
    assert in_both_spellings({"model_type": "gpt_oss", "rope_theta": 1.5e5}) == {"rope_theta": 1.5e5}


def test_phi3_s_scaling_is_spelled_for_both_of_its_classes() -> None:
    longrope = {"rope_type": "longrope", **LONG}
    text = {"model_type": "phi3", "rope_theta": 1e4, "rope_scaling": longrope, "original_max_position_embeddings": 256}

    written = in_both_spellings(text)

    assert written == {
        "rope_theta": 1e4,
        "rope_scaling": {"type": "longrope", **LONG},
        "rope_parameters": {**longrope, "rope_theta": 1e4, "original_max_position_embeddings": 256},
    }
    assert in_old_spelling(text | written) == text


@pytest.mark.parametrize("parameters", [[], "default", 1e6, True, ["rope_theta"]])
def test_rope_parameters_that_are_no_object_are_refused(parameters: Any) -> None:
    with pytest.raises(ConfigError, match="not understood"):
        in_old_spelling({"rope_parameters": parameters})


def test_rope_by_layer_type_is_refused() -> None:
    by_layer = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}

    with pytest.raises(ConfigError, match=r"not understood: .*full_attention"):
        in_old_spelling({"rope_parameters": by_layer})


def test_qwen3_moe_counts_its_experts_in_either_word() -> None:
    assert in_old_spelling({"model_type": "qwen3_moe", "num_local_experts": 8}) == {
        "model_type": "qwen3_moe",
        "num_experts": 8,
    }


def test_gpt_oss_keeps_its_own_word_for_experts() -> None:
    config = {"model_type": "gpt_oss", "num_local_experts": 8}

    assert in_old_spelling(config) == config


def test_two_numbers_of_experts_are_refused() -> None:
    with pytest.raises(ConfigError, match="says twice what num_experts is: 4 where transformers 4 reads it, and 8"):
        in_old_spelling({"model_type": "qwen3_moe", "num_experts": 4, "num_local_experts": 8})
