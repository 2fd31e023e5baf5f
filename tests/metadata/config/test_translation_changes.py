"""What was changed on the other side wins over what the old config says."""

from copy import deepcopy
from typing import Any

import pytest
from metadata.describing import changed, custom_config, description

from internvl_bridge.errors import ConfigError
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts, to_custom_config, to_hf_config

FACTS = TensorFacts(tied=False, packed=None, dtype="bfloat16")
TOKENS = TokenFacts(image=590, turn_end=474)


def hf_of(
    custom: dict[str, Any], facts: TensorFacts = FACTS, tokens: TokenFacts = TOKENS, old: Any = None
) -> dict[str, Any]:
    return to_hf_config(description(custom), facts, tokens, None if old is None else description(old))


def home(
    hf: dict[str, Any], old: dict[str, Any], facts: TensorFacts = FACTS, tokens: TokenFacts = TOKENS
) -> dict[str, Any]:
    """The custom config for ``hf``, with ``old`` as its old config."""
    model = description(old)
    return to_custom_config(description(hf, twin=model.family), facts, {}, tokens.turn_end, model)[0]


def with_base(hf: dict[str, Any], base: float) -> dict[str, Any]:
    """``hf`` with another rotary base, in both spellings."""
    parameters = hf["text_config"]["rope_parameters"] | {"rope_theta": base}
    return changed(hf, "text_config", rope_theta=base, rope_parameters=parameters)


@pytest.mark.parametrize(
    ("name", "section", "hf", "custom"),
    [
        ("qwen2-300m", "text_config", {"vocab_size": 640}, {"vocab_size": 640}),
        (
            "qwen2-300m",
            "text_config",
            {"rope_theta": 5e6, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6}},
            {"rope_theta": 5e6},
        ),
        ("qwen2-300m", "text_config", {"num_hidden_layers": 1}, {"num_hidden_layers": 1}),
        ("qwen2-300m", "text_config", {"eos_token_id": [2, 3]}, {"eos_token_id": [2, 3]}),
        (
            "qwen2-300m",
            "text_config",
            {
                "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
                "rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6},
            },
            {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        ),
        (
            "internlm2-300m",
            "text_config",
            {"rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            {"rope_scaling": None},
        ),
        ("internlm2-300m", "text_config", {"attention_bias": True}, {"bias": True}),
        ("qwen3moe-6b", "text_config", {"num_experts": 2, "num_local_experts": 2}, {"num_experts": 2}),
        ("gptoss-300m", "text_config", {"num_local_experts": 2}, {"num_local_experts": 2}),
        ("qwen2-300m", "vision_config", {"attention_bias": False}, {"qkv_bias": False}),
        ("qwen2-300m", "vision_config", {"use_qk_norm": True}, {"qk_normalization": True}),
        ("qwen2-300m", "vision_config", {"hidden_dropout_prob": 0.1}, {"dropout": 0.1}),
        ("qwen2-300m", "vision_config", {"image_size": [112, 112]}, {"image_size": 112}),
        ("qwen2-300m", None, {"vision_feature_layer": -2}, {"select_layer": -2}),
        ("qwen2-300m", None, {"image_seq_length": 16}, {"force_image_size": 112}),
    ],
)
def test_a_value_changed_in_the_hf_config_comes_back_and_nothing_else_does(
    name: str, section: str | None, hf: dict[str, Any], custom: dict[str, Any]
) -> None:
    original = custom_config(name)
    edited = changed(hf_of(original), section, **hf)

    back = home(edited, original)

    sections = {"text_config": "llm_config", "vision_config": "vision_config", None: None}
    assert back == changed(original, sections[section], **custom)


@pytest.mark.parametrize(
    ("name", "edit", "quantity"),
    [
        ("qwen2-300m", {"rope_theta": 5e6}, "rope_theta"),
        ("qwen2-300m", {"rope_parameters": {"rope_type": "default", "rope_theta": 5e6}}, "rope_theta"),
        ("qwen2-300m", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling"),
        ("internlm2-300m", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope_scaling"),
        ("internlm2-300m", {"rope_scaling": None}, "rope_scaling"),
        ("internlm2-300m", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, "rope_scaling"),
        ("gptoss-300m", {"rope_scaling": {"rope_type": "default"}}, "rope_scaling"),
        ("qwen3moe-6b", {"num_experts": 2}, "num_experts"),
        ("qwen3moe-6b", {"num_local_experts": 2}, "num_experts"),
    ],
)
def test_a_value_changed_in_one_of_its_two_spellings_is_refused(name: str, edit: dict[str, Any], quantity: str) -> None:
    """transformers 4 would obey the one and transformers 5 the other."""
    original = custom_config(name)
    edited = changed(hf_of(original), "text_config", **edit)

    with pytest.raises(ConfigError, match=f"text_config says twice what {quantity} is: .* transformers 4 reads"):
        home(edited, original)


def as_version_5(hf: dict[str, Any]) -> dict[str, Any]:
    """The HF config in the words of transformers 5 alone."""
    result = deepcopy(hf)
    result.pop("torch_dtype", None)
    for name in ("rope_theta", "rope_scaling", "partial_rotary_factor", "num_experts"):
        result["text_config"].pop(name, None)
    return result


def test_a_base_changed_in_the_custom_config_reaches_both_versions_of_transformers() -> None:
    custom = custom_config("qwen2-300m")
    old = as_version_5(hf_of(custom))

    hf = hf_of(changed(custom, "llm_config", rope_theta=5e6), old=old)

    # transformers 4 reads the first two, transformers 5 the third.
    assert hf["text_config"]["rope_theta"] == 5e6
    assert hf["text_config"]["rope_scaling"] is None
    assert hf["text_config"]["rope_parameters"] == {"rope_type": "default", "rope_theta": 5e6}


def test_a_scaling_changed_in_the_custom_config_keeps_the_base() -> None:
    custom = custom_config("qwen2-300m")
    old = as_version_5(hf_of(custom))
    scaled = changed(custom, "llm_config", rope_scaling={"type": "dynamic", "factor": 4.0})

    text = hf_of(scaled, old=old)["text_config"]

    assert text["rope_theta"] == 1000000.0
    assert text["rope_scaling"] == {"rope_type": "dynamic", "factor": 4.0}
    assert text["rope_parameters"] == {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1000000.0}


@pytest.mark.parametrize("scaling", [None, {"type": "dynamic", "factor": 4.0}])
def test_a_base_that_the_custom_config_leaves_open_is_its_class_s_default(scaling: Any) -> None:
    custom = custom_config("qwen2-300m")
    old = as_version_5(hf_of(custom))

    text = hf_of(changed(custom, "llm_config", rope_theta=..., rope_scaling=scaling), old=old)["text_config"]

    assert text["rope_theta"] == 10000.0
    assert text["rope_parameters"]["rope_theta"] == 10000.0


def test_the_default_base_of_gpt_oss_is_its_own() -> None:
    custom = changed(custom_config("gptoss-300m"), "llm_config", rope_theta=...)

    text = hf_of(custom)["text_config"]

    assert (text["rope_theta"], text["rope_parameters"]["rope_theta"]) == (150000.0, 150000.0)
    assert home(hf_of(custom), custom) == custom


NO_TURN_END = TokenFacts(image=590, turn_end=None)


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("max_position_embeddings", TOKENS),
        ("rms_norm_eps", TOKENS),
        ("eos_token_id", NO_TURN_END),
        ("max_window_layers", TOKENS),
    ],
)
def test_what_only_the_old_config_states_is_taken_out(name: str, tokens: TokenFacts) -> None:
    custom = changed(custom_config("qwen2-300m"), "llm_config", max_window_layers=21)
    old_hf = hf_of(custom, tokens=tokens)
    silent_custom = changed(custom, "llm_config", **{name: ...})
    silent_hf = changed(old_hf, "text_config", **{name: ...})

    assert name in old_hf["text_config"]
    assert hf_of(silent_custom, tokens=tokens, old=old_hf) == silent_hf
    assert home(silent_hf, custom, tokens=tokens) == silent_custom


@pytest.mark.parametrize("stated", [..., None, 2, [2, 3]])
def test_a_turn_s_end_that_the_custom_config_does_not_state_is_stated_and_goes_again(stated: Any) -> None:
    custom = changed(custom_config("qwen2-300m"), "llm_config", eos_token_id=stated)

    hf = hf_of(custom)

    assert hf["text_config"]["eos_token_id"] == 474
    assert home(hf, custom) == custom


@pytest.mark.parametrize("stated", [474, [474], [2, 474]])
def test_a_turn_s_end_that_the_custom_config_states_stays_as_it_is_stated(stated: Any) -> None:
    custom = changed(custom_config("qwen2-300m"), "llm_config", eos_token_id=stated)

    hf = hf_of(custom)

    assert hf["text_config"]["eos_token_id"] == stated
    assert home(hf, custom) == custom


def test_an_end_that_the_hf_config_had_stays_although_it_ends_no_turn() -> None:
    custom = custom_config("qwen2-300m")
    old = hf_of(custom, tokens=NO_TURN_END)

    assert old["text_config"]["eos_token_id"] == 2
    assert hf_of(custom, old=old) == old


def test_another_end_than_the_hf_config_had_gives_way_to_that_of_a_turn() -> None:
    custom = custom_config("qwen2-300m")
    old = hf_of(custom, tokens=NO_TURN_END)

    text = hf_of(changed(custom, "llm_config", eos_token_id=3), old=old)["text_config"]

    assert text["eos_token_id"] == 474


def test_what_a_tower_leaves_out_is_its_class_s_default_and_not_the_old_config_s() -> None:
    custom = custom_config("qwen2-300m")
    old_hf = hf_of(custom)

    six_billion = hf_of(changed(custom, "vision_config", qkv_bias=..., norm_type=...), old=old_hf)["vision_config"]
    small = home(changed(old_hf, "vision_config", attention_bias=..., norm_type=...), custom)["vision_config"]

    assert (six_billion["attention_bias"], six_billion["norm_type"]) == (False, "rms_norm")
    assert (small["qkv_bias"], small["norm_type"]) == (False, "layer_norm")


def test_a_number_of_layers_that_hf_leaves_out_is_that_of_its_class() -> None:
    custom = custom_config("qwen2-300m")

    back = home(changed(hf_of(custom), "vision_config", num_hidden_layers=...), custom)

    assert back["vision_config"]["num_hidden_layers"] == 24


def test_a_changed_base_keeps_the_partial_rotation() -> None:
    custom = changed(custom_config("phi3-300m"), "llm_config", partial_rotary_factor=0.5)
    old = as_version_5(hf_of(custom))
    assert old["text_config"]["rope_parameters"]["partial_rotary_factor"] == 0.5

    text = hf_of(changed(custom, "llm_config", rope_theta=5e6), old=old)["text_config"]

    assert text["rope_theta"] == 5e6
    assert text["partial_rotary_factor"] == 0.5
    assert text["rope_parameters"] == {"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5}


def test_experts_counted_anew_are_counted_alike_in_both_words() -> None:
    custom = custom_config("qwen3moe-6b")
    old = as_version_5(hf_of(custom))

    text = hf_of(changed(custom, "llm_config", num_experts=2), old=old)["text_config"]

    assert (text["num_experts"], text["num_local_experts"]) == (2, 2)


@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3moe-6b", "gptoss-300m", "internlm2-300m", "phi3-300m"])
def test_without_a_change_the_words_of_version_5_stay(name: str) -> None:
    custom = custom_config(name)
    old = as_version_5(hf_of(custom))

    assert hf_of(custom, old=old) == old


def test_an_hf_config_s_own_word_for_experts_stays_where_the_count_does() -> None:
    custom = custom_config("qwen3moe-6b")
    old = as_version_5(hf_of(custom))

    text = hf_of(changed(custom, "llm_config", vocab_size=640), old=old)["text_config"]

    assert text["num_local_experts"] == 4
    assert "num_experts" not in text


def test_a_changed_phi3_scaling_replaces_the_words_of_version_5() -> None:
    long = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    custom = custom_config("phi3-300m")
    old = as_version_5(hf_of(custom))

    text = hf_of(changed(custom, "llm_config", rope_scaling={"type": "su", **long}), old=old)["text_config"]

    assert text["rope_scaling"] == {"type": "longrope", **long}
    assert text["rope_theta"] == 10000.0
    assert text["rope_parameters"] == {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": 512,
        **long,
    }


def test_a_dtype_changed_in_the_custom_config_is_written_in_both_words() -> None:
    custom = custom_config("qwen2-300m")
    old = hf_of(custom)

    hf = hf_of(custom | {"torch_dtype": "float16"}, old=old)

    assert (hf["torch_dtype"], hf["dtype"]) == ("float16", "float16")


def test_a_changed_dtype_comes_back_at_every_level_that_states_one() -> None:
    custom = custom_config("qwen2-300m")
    hf = hf_of(custom) | {"torch_dtype": "float32", "dtype": "float32"}

    back = home(hf, custom)

    assert custom["torch_dtype"] == custom["llm_config"]["torch_dtype"] == "bfloat16"
    assert back["torch_dtype"] == "float32"
    assert back["llm_config"]["torch_dtype"] == back["vision_config"]["torch_dtype"] == "float32"
    assert "dtype" not in back


def test_a_dtype_changed_in_the_custom_config_is_written_at_every_level_that_states_one() -> None:
    custom = custom_config("qwen2-300m")
    old = hf_of(custom)
    old["text_config"]["dtype"] = old["vision_config"]["torch_dtype"] = "bfloat16"

    hf = hf_of(custom | {"torch_dtype": "float16"}, old=old)

    assert (hf["torch_dtype"], hf["dtype"]) == ("float16", "float16")
    assert hf["text_config"]["dtype"] == hf["vision_config"]["torch_dtype"] == "float16"
    assert "torch_dtype" not in hf["text_config"]
    assert "dtype" not in hf["vision_config"]


@pytest.mark.parametrize("name", ["torch_dtype", "dtype"])
def test_the_same_dtype_leaves_the_old_config_s_word_for_it(name: str) -> None:
    custom = custom_config("qwen2-300m")
    old = changed(hf_of(custom), None, torch_dtype=..., dtype=...) | {name: "bfloat16"}

    assert hf_of(custom, old=old) == old


def test_another_image_token_wins() -> None:
    custom = custom_config("qwen2-300m")
    old = hf_of(custom)

    assert hf_of(custom, tokens=TokenFacts(591, 474), old=old) == old | {"image_token_id": 591}


@pytest.mark.parametrize("tied", [False, True])
def test_the_tensors_decide_about_tying_at_both_levels(tied: bool) -> None:
    custom = custom_config("qwen2-300m")
    facts = TensorFacts(tied=tied, packed=None, dtype="bfloat16")

    hf = hf_of(custom, facts)
    back = home(hf, custom, facts)

    for section in (hf, hf["text_config"], back, back["llm_config"]):
        assert section["tie_word_embeddings"] is tied


def test_an_hf_model_untied_since_overrules_its_old_config() -> None:
    custom = changed(custom_config("qwen2-300m"), None, tie_word_embeddings=True)
    custom["llm_config"]["tie_word_embeddings"] = True
    hf = hf_of(custom)

    back = home(hf, custom)

    assert back["tie_word_embeddings"] is False
    assert back["llm_config"]["tie_word_embeddings"] is False


def test_a_changed_base_replaces_the_words_of_transformers_5_in_a_custom_config() -> None:
    custom = custom_config("internlm2-300m")
    text = custom["llm_config"]
    text["rope_parameters"] = {"rope_theta": text.pop("rope_theta"), "rope_type": "dynamic", "factor": 2.0}
    del text["rope_scaling"]
    hf = hf_of(custom)

    back = home(with_base(hf, 5e6), custom)

    assert home(hf, custom) == custom
    assert "rope_parameters" not in back["llm_config"]
    assert back["llm_config"]["rope_theta"] == 5e6
    assert back["llm_config"]["rope_scaling"] == {"type": "dynamic", "factor": 2.0}
    assert description(back).text["rope_scaling"] == description(custom).text["rope_scaling"]
