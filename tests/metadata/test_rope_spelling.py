"""Rotary embeddings and expert counts: what transformers 4 and 5 write means the same."""

from typing import Any

import pytest

from internvl_bridge.errors import ConfigError
from internvl_bridge.metadata.rope import canonical_scaling, in_old_spelling, old_style_scaling

YARN = {"factor": 32.0, "beta_fast": 32.0, "truncate": False}


@pytest.mark.parametrize(
    ("scaling", "canonical"),
    [
        (None, None),
        ({"type": "dynamic", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}),
        ({"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "dynamic", "factor": 2.0}),
        ({"type": "yarn", "rope_type": "yarn", **YARN}, {"rope_type": "yarn", **YARN}),
        ({"type": "su", "long_factor": [1.0]}, {"rope_type": "longrope", "long_factor": [1.0]}),
        ({"rope_type": "su", "long_factor": [1.0]}, {"rope_type": "longrope", "long_factor": [1.0]}),
        ({"rope_type": "default"}, None),
        ({"type": "default"}, None),
        ({}, None),
        ("odd", "odd"),
    ],
)
def test_a_scaling_has_one_canonical_form(scaling: Any, canonical: Any) -> None:
    assert canonical_scaling(scaling) == canonical
    assert canonical_scaling(canonical) == canonical


@pytest.mark.parametrize(
    ("canonical", "old"),
    [
        (None, None),
        ({"rope_type": "dynamic", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}),
        ({"rope_type": "yarn", **YARN}, {"type": "yarn", **YARN}),
    ],
)
def test_the_custom_format_gets_the_old_type_key_alone(canonical: Any, old: Any) -> None:
    assert old_style_scaling(canonical) == old
    assert canonical_scaling(old) == canonical


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
        ({"rope_theta": 1e6}, {"rope_theta": 1e6}),
        ({"rope_theta": 1e6, "rope_scaling": None}, {"rope_theta": 1e6, "rope_scaling": None}),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 3.0}},
            {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 3.0}},
        ),
        ({"rope_parameters": None, "rope_theta": 1e6}, {"rope_theta": 1e6}),
        ({}, {}),
    ],
    ids=["v5", "v5 scaled", "v5 partial", "v4 base", "v4", "v4 scaled", "v5 unset", "silent"],
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
    ],
)
def test_a_config_that_says_two_things_is_refused(union: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^text_config says twice what {name} is: "):
        in_old_spelling(union)


def test_rope_by_layer_type_is_refused() -> None:
    by_layer = {"full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}

    with pytest.raises(ConfigError, match="rope_parameters differs by layer type"):
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
    with pytest.raises(ConfigError, match="says twice what num_experts is: 4 and 8"):
        in_old_spelling({"model_type": "qwen3_moe", "num_experts": 4, "num_local_experts": 8})
