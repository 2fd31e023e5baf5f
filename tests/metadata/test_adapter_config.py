"""adapter_config.json: which adapters are understood, and what is said of those that are converted."""

from pathlib import Path
from typing import Any

import pytest
from adapters import lora_config

from internvl_bridge.errors import ConfigError, ContradictionError, UnsupportedModelError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.lora.factors import Scaling
from internvl_bridge.mapping.lora.packing import PackedAdapter
from internvl_bridge.metadata.adapter_config import (
    AdapterConfig,
    checked_config,
    converted_config,
    notes_on_config,
    read_adapter_config,
    selects,
)
from internvl_bridge.metadata.json_files import JsonFile, as_text
from internvl_bridge.notes import Warn


def checked(**fields: Any) -> AdapterConfig:
    return checked_config(JsonFile(Path("adapter/adapter_config.json"), "", lora_config(**fields)))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"peft_type": "IA3"}, "has peft_type 'IA3'"),
        ({"peft_type": None}, "has peft_type None"),
        ({"init_lora_weights": "pissa_niter_4"}, "the base model was changed when the training began"),
        ({"init_lora_weights": "olora"}, "init_lora_weights 'olora'"),
        ({"layer_replication": [[0, 2]]}, "uses layer_replication, which is neither converted nor merged"),
        ({"kasa_config": {"a": 1}}, "uses kasa_config, which is neither converted nor merged"),
    ],
)
def test_other_adapters_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        checked(**fields)
    assert reason in error.value.reason


@pytest.mark.parametrize("begin", [True, False, "gaussian", "eva", None])
def test_beginnings_that_leave_the_base_alone_are_understood(begin: object) -> None:
    assert checked(init_lora_weights=begin).values["init_lora_weights"] == begin


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 0),
        ("r", "4"),
        ("r", True),
        ("lora_alpha", 0),
        ("lora_alpha", float("inf")),
        ("lora_alpha", None),
        ("rank_pattern", []),
        ("rank_pattern", {"q_proj": "4"}),
        ("alpha_pattern", {"(": 4}),
        ("alpha_pattern", {"(a+)+": 4}),
        ("alpha_pattern", {"x" * 501: 4}),
        ("alpha_pattern", {".*.*.*.*.*.*.*": 4}),
        ("target_parameters", "experts"),
        ("modules_to_save", [1]),
        ("use_rslora", "yes"),
        ("use_rslora", []),
        ("lora_alpha", 5e-324),
        ("lora_alpha", 10**308),
        ("r", 10**9),
        ("alpha_pattern", {".?" * 200: 4}),
        ("use_dora", 2),
        ("base_model_name_or_path", 5),
    ],
)
def test_values_that_peft_does_not_have_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"adapter_config.json has {field} "):
        checked(**{field: value})


@pytest.mark.parametrize(
    ("mapping", "format_"),
    [
        ({"base_model_class": "InternVLChatModel"}, Format.CUSTOM),
        ({"base_model_class": "InternVLForConditionalGeneration"}, Format.HF),
        ({"base_model_class": "Other"}, None),
        (None, None),
    ],
)
def test_the_class_of_the_base_says_its_format(mapping: Any, format_: Format | None) -> None:
    assert checked(auto_mapping=mapping).format is format_


def test_the_first_pattern_that_matches_a_module_counts() -> None:
    config = checked(rank_pattern={"layers.0.*": 4, "q_proj": 8}, alpha_pattern={"q_proj": 6}, use_rslora=True)
    assert config.scaling_of("model.layers.0.q_proj", 4) == Scaling(6, 4, is_rslora=True)
    assert config.scaling_of("model.layers.1.q_proj", 8) == Scaling(6, 8, is_rslora=True)
    assert config.scaling_of("model.layers.1.xq_proj", 2) == Scaling(4, 2, is_rslora=True)


def test_a_config_is_read_from_its_directory(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(as_text(lora_config(target_parameters=["a"])))
    assert read_adapter_config(tmp_path).parameters == ("a",)


def test_what_the_owner_should_know_is_said() -> None:
    config = checked(task_type="CAUSAL_LM")
    notes = [*notes_on_config(config, {**config.values, "lora_dropout": 0.0}, Format.CUSTOM)]
    assert isinstance(notes[0], Warn)
    assert "prepare_inputs_for_generation" in notes[0]
    assert "lora_dropout is 0" in notes[1]
    assert [*notes_on_config(config, config.values, Format.HF)] == []


def test_the_base_and_its_class_are_those_of_the_target() -> None:
    nothing = PackedAdapter({}, {}, {}, {}, {}, {}, {})
    made = converted_config(checked(), nothing, [], Format.HF, "/data/base")
    assert made["base_model_name_or_path"] == "/data/base"
    assert made["auto_mapping"]["base_model_class"] == "InternVLForConditionalGeneration"
    made = converted_config(checked(auto_mapping=None), nothing, [], Format.CUSTOM, None)
    assert (made["base_model_name_or_path"], made["auto_mapping"], made["target_modules"]) == (
        "base",
        None,
        "dummy-target-modules",
    )


MODULES = ["a.q_proj", "a.k_proj", "b.q_proj"]


@pytest.mark.parametrize(
    ("fields", "chosen"),
    [
        ({"target_modules": ["q_proj"]}, {"a.q_proj", "b.q_proj"}),
        ({"target_modules": ["a.q_proj"]}, {"a.q_proj"}),
        ({"target_modules": ["q_proj"], "exclude_modules": ["a.q_proj"]}, {"b.q_proj"}),
        ({"target_modules": "a.*", "exclude_modules": ".*k_proj"}, {"a.q_proj"}),
        ({"target_modules": "(a+)+"}, None),
        ({"target_modules": ["q_proj"], "layers_pattern": "layers"}, None),
        ({"target_modules": ["q_proj"], "layers_to_transform": [0]}, None),
        ({}, set()),
    ],
)
def test_targets_select_modules_as_in_peft(fields: dict[str, Any], chosen: set[str] | None) -> None:
    assert selects(fields, MODULES) == chosen


def test_patterns_of_a_parameter_that_is_the_target_are_matched_with_its_name() -> None:
    config = checked(target_parameters=["o_proj.weight"], alpha_pattern={"o_proj": 17, "v_proj": 5})
    assert config.scaling_of("model.o_proj", 2).alpha == 4
    assert config.scaling_of("model.v_proj", 2).alpha == 5


def test_patterns_may_be_written_for_another_name() -> None:
    config = checked(alpha_pattern={r"model\.language_model\.layers.0.q_proj": 32})
    assert config.scaling_of("language_model.model.layers.0.q_proj", 2).alpha == 4
    assert (
        config.scaling_of("language_model.model.layers.0.q_proj", 2, ["model.language_model.layers.0.q_proj"]).alpha
        == 32
    )


@pytest.mark.parametrize("stated", [None, {}, {"lm_head": [1]}, []])
def test_trained_rows_need_their_indices(stated: object) -> None:
    tokens = {"model.embed_tokens": "language_model.model.tok_embeddings"}
    packed = PackedAdapter({}, {}, {}, {}, {}, {}, tokens)
    with pytest.raises(ContradictionError, match=r"trained rows of language_model\.model\.tok_embeddings"):
        converted_config(checked(trainable_token_indices=stated), packed, [], Format.HF, None)
    for right in ([1, 2], {"tok_embeddings": [1]}, {"model.x.tok_embeddings": [1]}, {"beddings": [1]}):
        made = converted_config(checked(trainable_token_indices=right), packed, [], Format.HF, None)
        assert made["trainable_token_indices"] == (right if isinstance(right, list) else {"model.embed_tokens": [1]})


def test_the_first_pattern_counts_whatever_name_it_matches():
    patterns = {"model.language_model.q_proj": 64, "q_proj": 7}
    config = checked_config(JsonFile(Path("x"), "", lora_config(alpha_pattern=patterns)))
    assert config.scaling_of("language_model.q_proj", 2, ["model.language_model.q_proj"]).alpha == 64
