"""A repaired config.json says what the source's says, in the words of transformers 4 and 5, whoever wrote that."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metadata.config.test_translation import HF
from metadata.describing import CUSTOM, changed, description

from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.mapping.config_fields import ABSENT
from internvl_bridge.mapping.families import INTERNLM2
from internvl_bridge.mapping.packing import MXFP4, Packed
from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.config.fields import TOP_FIELDS, VISION_FIELDS
from internvl_bridge.metadata.config.repair import repaired_config
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts, to_hf_config
from internvl_bridge.metadata.config.unsupported import HF_CONSTANTS, HF_VISION_CONSTANTS
from internvl_bridge.metadata.json_files import as_text

UNTIED = TensorFacts(tied=False, packed=None, dtype="float32")
TIED = TensorFacts(tied=True, packed=None, dtype="float32")
WITH_MXFP4 = TensorFacts(tied=False, packed=Packed(MXFP4, ()), dtype="bfloat16")
TOKENS = TokenFacts(image=590, turn_end=474)
BASE, DEFAULT = {"rope_theta": 1000000.0}, {"rope_theta": 1000000.0, "rope_type": "default"}
SECTIONS = (None, "vision_config", "text_config")


def compatible(
    config: dict[str, Any], tensors: TensorFacts = UNTIED, tokens: TokenFacts = TOKENS, **options: Any
) -> dict[str, Any]:
    before = json.dumps(config)
    made = repaired_config(description(config, **options), tensors, tokens)
    text = json.dumps(made)
    holder(made, "text_config").clear()
    assert json.dumps(config) == before  # which is neither changed nor shared
    return json.loads(text)


def holder(config: dict[str, Any], section: str | None) -> dict[str, Any]:
    return config if section is None else config[section]


def meaning(model: ModelDescription) -> dict[str, Any]:
    """What a config says of every field that is known, with what the class means by silence."""
    parts = (("", model.values, TOP_FIELDS), ("vision", model.vision, VISION_FIELDS))
    told = {
        (where, field.hf): values.get(field.hf, field.hf_default)
        for where, values, fields in (*parts, ("text", model.text, model.text_fields))
        for field in fields
    }
    constants = [("", name, model.values.get(name, value)) for name, value in HF_CONSTANTS.items()]
    constants += [("vision", name, model.vision.get(name, value)) for name, value in HF_VISION_CONSTANTS.items()]
    told |= {(where, name): value for where, name, value in constants}
    told["", "image_seq_length"] = model.values.get("image_seq_length", 256)
    return told


# The laws.

REMOVABLE = {
    None: ("image_seq_length", "downsample_ratio", "vision_feature_layer", *HF_CONSTANTS, "dtype", "torch_dtype"),
    "vision_config": (*HF_VISION_CONSTANTS, "num_channels", "layer_norm_eps", "image_size", "patch_size", "norm_type"),
    "text_config": ("layer_types", "head_dim", "attention_bias", "use_cache", "rope_theta", "rope_parameters"),
}
OTHERS = st.dictionaries(
    st.from_regex("x_[a-z]{1,5}", fullmatch=True),
    st.none() | st.integers(-9, 9) | st.floats(-2, 2) | st.text(max_size=3) | st.lists(st.integers(0, 3), max_size=2),
    max_size=3,
)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """A config of any version, thinned out, with what nobody knows, in any order."""
    config = deepcopy(HF[draw(st.sampled_from(sorted(HF)))])
    for section in SECTIONS:
        values = holder(config, section)
        gone = draw(st.sets(st.sampled_from(REMOVABLE[section])))
        kept = [name for name in values if name not in gone or name == "model_type"]
        pairs = {**{name: values[name] for name in kept}, **draw(OTHERS)}
        values.clear()
        values.update({name: pairs[name] for name in draw(st.permutations(sorted(pairs)))})
    return config


@given(configs(), st.booleans())
def test_it_means_the_same_and_needs_no_repair_when_made_again(config: dict[str, Any], tied: bool):
    facts = TIED if tied else UNTIED
    made = compatible(config, facts)
    expected = meaning(description(config))
    if expected["text", "eos_token_id"] is ABSENT:
        expected["text", "eos_token_id"] = 474
    assert meaning(description(made)) == expected
    assert json.dumps(compatible(made, facts)) == json.dumps(made)


@given(configs())
def test_every_name_keeps_its_place_and_what_is_unknown_its_value(config: dict[str, Any]):
    made = compatible(config)
    for section in SECTIONS:
        old, new = holder(config, section), holder(made, section)
        assert list(new)[: len(old)] == list(old)
        assert {name: new[name] for name in old if name.startswith("x_")} == {
            name: old[name] for name in old if name.startswith("x_")
        }


@given(configs())
def test_no_default_is_left_open_and_both_versions_find_their_words(config: dict[str, Any]):
    made, model = compatible(config), description(config)
    vision, text = made["vision_config"], made["text_config"]
    assert made.keys() >= {*HF_CONSTANTS, *(field.hf for field in TOP_FIELDS), "image_token_id", "image_seq_length"}
    assert vision.keys() >= {*HF_VISION_CONSTANTS, *(field.hf for field in VISION_FIELDS), "projection_dropout"}
    assert [len(vision[name]) for name in ("image_size", "patch_size")] == [2, 2]
    assert {made["torch_dtype"], made["dtype"]} == {model.values.get("torch_dtype", "float32")}
    assert made["tie_word_embeddings"] is text["tie_word_embeddings"] is False
    assert made["transformers_version"] == "4.52.1"
    base = model.text.get("rope_theta", 150_000.0 if text["model_type"] == "gpt_oss" else 10_000.0)
    assert text["rope_theta"] == base
    if text["model_type"] != "gpt_oss" or "rope_parameters" in config["text_config"]:
        scaling = dict(text["rope_scaling"] or {"rope_type": "default"})
        scaling["rope_type"] = scaling.pop("type", None) or scaling["rope_type"]
        assert text["rope_parameters"].items() >= {**scaling, "rope_theta": base}.items()
    if text["model_type"] == "qwen3_moe":
        assert text["num_experts"] == text["num_local_experts"] == 4


@pytest.mark.parametrize("name", CUSTOM)
def test_what_to_hf_writes_needs_no_repair(name: str):
    facts = TIED if name.endswith("-tied") else UNTIED
    config = to_hf_config(describe(CUSTOM[name]), facts, TOKENS, old=None)
    assert as_text(compatible(config, facts)) == as_text(config)


SAID_OTHERWISE = {
    None: {*HF_CONSTANTS, "transformers_version", "torch_dtype", "downsample_ratio"} - {"model_type"},
    "vision_config": {*HF_VISION_CONSTANTS, "num_channels", "projection_dropout"},
    "text_config": {"tie_word_embeddings", "rope_theta", "rope_scaling", "num_experts"},
}


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("name", CUSTOM)
def test_what_was_missing_follows_in_the_order_of_to_hf(name: str, section: str | None):
    """Each of these is a default, or said by another name or by the tensors."""
    facts = TIED if name.endswith("-tied") else UNTIED
    whole = to_hf_config(describe(CUSTOM[name]), facts, TOKENS, old=None)
    gone = [field for field in holder(whole, section) if field in SAID_OTHERWISE[section]]
    made = compatible(changed(whole, section, **dict.fromkeys(gone, ...)), facts)
    assert made == json.loads(json.dumps(whole))
    assert list(holder(made, section))[-len(gone) :] == gone


@pytest.mark.parametrize("name", ["internlm2-300m", "internlm2-6b"])
def test_a_sidecar_that_names_another_class_makes_no_difference(name: str):
    config = to_hf_config(describe(CUSTOM[name]), UNTIED, TOKENS, old=None)
    assert as_text(compatible(config, twin=INTERNLM2)) == as_text(config)


# What each version's own words become.


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen2@4.52.4", {**BASE, "rope_scaling": None, "rope_parameters": DEFAULT}),
        ("qwen2-300m@state-dict", {**BASE, "rope_scaling": None, "rope_parameters": DEFAULT}),
        ("qwen3-300m-tied@5.4.0", {**BASE, "rope_scaling": None, "rope_parameters": DEFAULT}),
        ("qwen3moe@4.57.6", {**BASE, "rope_scaling": None, "rope_parameters": DEFAULT}),
        ("qwen3moe@5.23.0", {**BASE, "rope_scaling": None, "rope_parameters": DEFAULT}),
        (
            "phi3@5.23.0",
            {
                **BASE,
                "partial_rotary_factor": 0.5,
                "rope_scaling": None,
                "rope_parameters": {**DEFAULT, "partial_rotary_factor": 0.5},
            },
        ),
        (
            "llama@5.23.0",
            {
                **BASE,
                "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
                "rope_parameters": {**BASE, "rope_type": "dynamic", "factor": 2.0},
            },
        ),
        (
            "silent about every default",
            {
                "rope_theta": 10000.0,
                "rope_scaling": None,
                "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
            },
        ),
    ],
)
def test_rotary_embeddings_are_said_in_both_ways(name: str, expected: dict[str, Any]):
    text = compatible(HF[name])["text_config"]
    assert {key: value for key, value in text.items() if "rope" in key or "rotary" in key} == expected


def test_yarn_of_gpt_oss_is_said_in_both_ways():
    parameters = HF["gptoss@5.23.0"]["text_config"]["rope_parameters"]
    text = compatible(HF["gptoss@5.23.0"])["text_config"]
    assert text["rope_parameters"] == parameters
    assert text["rope_scaling"] == {key: value for key, value in parameters.items() if key != "rope_theta"}
    assert text["rope_theta"] == 150000.0


def test_gpt_oss_scales_unasked_and_says_so_where_it_does_not():
    """Its class takes silence, and transformers 5 null too, for YaRN."""
    silent = changed(HF["gptoss@5.23.0"], "text_config", rope_parameters=...)
    text = compatible(silent)["text_config"]
    assert text["rope_theta"] == 150000.0
    assert "rope_scaling" not in text
    assert "rope_parameters" not in text
    text = compatible(changed(silent, "text_config", rope_scaling=None))["text_config"]
    assert text["rope_scaling"] == {"rope_type": "default"}
    assert text["rope_parameters"] == {"rope_type": "default", "rope_theta": 150000.0}


def test_phi3s_scaling_has_the_three_keys_that_version_4_insists_on():
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    parameters = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 256, **factors}
    saved_by_5 = changed(
        HF["phi3@5.23.0"], "text_config", rope_parameters=parameters, original_max_position_embeddings=...
    )
    text = compatible(saved_by_5)["text_config"]
    assert text["rope_scaling"] == {"type": "longrope", **factors}
    assert text["rope_parameters"] == parameters
    assert text["original_max_position_embeddings"] == 256


def test_sides_become_pairs_and_pairs_that_are_there_stay():
    made = compatible(changed(HF["qwen2@4.52.4"], "vision_config", image_size=448, patch_size=[14]))
    assert (made["vision_config"]["image_size"], made["vision_config"]["patch_size"]) == ([448, 448], [14, 14])


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"dtype": "float16"}, "float16"),
        ({"torch_dtype": "float16"}, "float16"),
        ({"torch_dtype": None}, "float32"),
        ({}, "float32"),
    ],
)
def test_the_dtype_has_both_names(stated: dict[str, Any], expected: str):
    made = compatible({**changed(HF["qwen2@4.52.4"], None, torch_dtype=..., dtype=...), **stated})
    assert (made["torch_dtype"], made["dtype"]) == (expected, expected)


def test_a_dtype_below_stays_as_it_is():
    made = compatible(changed(HF["qwen2@4.52.4"], "vision_config", dtype="float32"))
    assert (made["dtype"], made["vision_config"]["dtype"]) == ("bfloat16", "float32")
    assert "torch_dtype" not in made["vision_config"]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("stated", [True, False, ...])
def test_the_tensors_say_whether_the_head_is_tied(tied: bool, stated: Any):
    config = changed(HF["qwen2@4.52.4"], None, tie_word_embeddings=stated)
    made = compatible(changed(config, "text_config", tie_word_embeddings=stated), TIED if tied else UNTIED)
    assert made["tie_word_embeddings"] is made["text_config"]["tie_word_embeddings"] is tied


def test_the_tokenizer_says_which_token_is_the_image():
    assert compatible(HF["qwen2@4.52.4"], tokens=TokenFacts(image=7))["image_token_id"] == 7


@pytest.mark.parametrize(("stated", "expected"), [(2, 2), ([2, 3], [2, 3]), (474, 474), (None, 474), (..., 474)])
def test_an_end_is_only_stated_where_there_is_none(stated: Any, expected: Any):
    config = changed(HF["qwen2@4.52.4"], "text_config", eos_token_id=stated)
    assert compatible(config)["text_config"]["eos_token_id"] == expected


@pytest.mark.parametrize("stated", [None, ...])
def test_where_nothing_tells_how_a_turn_ends_nothing_is_stated(stated: Any):
    config = changed(HF["qwen2@4.52.4"], "text_config", eos_token_id=stated)
    assert compatible(config, tokens=TokenFacts(590))["text_config"].get("eos_token_id", ...) is stated


@pytest.mark.parametrize("nothing", [None, [], ...])
def test_a_config_without_architectures_gets_them(nothing: Any):
    made = compatible(changed(HF["qwen2@4.52.4"], None, architectures=nothing))
    assert made["architectures"] == ["InternVLForConditionalGeneration"]


def test_modules_that_the_output_does_not_have_are_not_named():
    config = changed(HF["qwen2@4.52.4"], None, auto_map={"AutoModel": "modeling_x.X"})
    assert compatible(config) == compatible(HF["qwen2@4.52.4"])


def test_a_constant_that_is_none_is_kept():
    """Nothing here decides whether such a model can be repaired."""
    assert (
        compatible(changed(HF["qwen2@4.52.4"], "vision_config", use_mean_pooling=False))["vision_config"][
            "use_mean_pooling"
        ]
        is False
    )


# Experts in 4 bits.

QUANTIZED = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}


@pytest.mark.parametrize("section", [None, "text_config"])
def test_a_quantization_that_is_stated_is_stated_at_the_top(section: str | None):
    config = changed(HF["gptoss@5.23.0"], section, quantization_config=QUANTIZED)
    assert compatible(config, WITH_MXFP4)["quantization_config"] == QUANTIZED


def test_a_quantization_that_nothing_states_is_stated():
    assert compatible(HF["gptoss@5.23.0"], WITH_MXFP4)["quantization_config"] == {"quant_method": "mxfp4"}


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_quantization_that_says_nothing_goes(nothing: Any):
    """transformers 4.57 fails on null."""
    config = changed(HF["gptoss@5.23.0"], None, quantization_config=nothing)
    assert "quantization_config" not in compatible(config)


@pytest.mark.parametrize("facts", [UNTIED, WITH_MXFP4])
def test_a_quantization_that_is_not_the_tensors_is_refused(facts: TensorFacts):
    method = "mxfp4" if facts is UNTIED else "fp8"
    config = changed(HF["gptoss@5.23.0"], None, quantization_config={"quant_method": method})
    with pytest.raises(UnsupportedModelError, match=f"quantization_config of method '{method}'"):
        compatible(config, facts)
