"""tokenizer_config.json in the words of transformers 4 and 5, of HF's processor and of the custom format."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import DATA

from internvl_bridge.metadata.tokenizer.tokenizer_config import (
    DECLARED,
    GENERIC_CLASS,
    class_name,
    for_custom,
    for_hf,
    in_old_spelling,
    special_token,
    without_declared,
)


def stored(path: str) -> dict[str, Any]:
    return json.loads((DATA / path / "tokenizer_config.json").read_text())


SAVED_4, SAVED_5 = stored("tokenizer-4.57.6"), stored("tokenizer-5.23.0")
BPE, INTERNLM2 = stored("tokenizers/bpe"), stored("tokenizers/internlm2")
NINE = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5))
values = st.one_of(scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=5), scalars, max_size=3))
classes = st.sampled_from(["Qwen2TokenizerFast", "InternLM2Tokenizer", "LlamaTokenizer", "TokenizersBackend", "Own"])
special = st.one_of(
    st.lists(st.sampled_from(NINE)),
    st.dictionaries(st.sampled_from([*DECLARED, "other_token"]), st.sampled_from(NINE)),
)
names = st.sampled_from(
    ["add_bos_token", "auto_map", "backend", "bos_token", "chat_template", "legacy", "padding_side"]
)
configs = st.builds(
    lambda *layers: {name: value for layer in layers for name, value in layer.items()},
    st.dictionaries(names, values),
    st.fixed_dictionaries({}, optional={"tokenizer_class": classes, "extra_special_tokens": special}),
    st.fixed_dictionaries(
        {},
        optional={
            "additional_special_tokens": st.lists(st.sampled_from(NINE)),
            "model_specific_special_tokens": st.dictionaries(st.sampled_from([*DECLARED, "x"]), st.just("<x>")),
            "video_token": st.just("<video>"),
            "processor_class": st.just("InternVLProcessor"),
        },
    ),
)


def declared_in(config: dict[str, Any]) -> set[str]:
    """Everything in ``config`` that only HF's processor asks for."""
    extra = config.get("extra_special_tokens", {})
    inner = set(extra) if isinstance(extra, dict) else set()
    return DECLARED.keys() & (config.keys() | inner)


@given(configs, st.booleans())
def test_what_is_for_hf_stays_as_it_is(config: dict[str, Any], has_json: bool):
    once = for_hf(config, has_json=has_json)
    assert for_hf(once, has_json=has_json) == once


@given(configs, st.booleans())
def test_hf_gets_what_its_processor_asks_for_and_no_remote_code(config: dict[str, Any], has_json: bool):
    before = deepcopy(config)
    made = for_hf(config, has_json=has_json)
    assert made["extra_special_tokens"].items() >= DECLARED.items()
    assert made.keys().isdisjoint({"auto_map", "chat_template", "model_specific_special_tokens"})
    assert (made.get("tokenizer_class") == GENERIC_CLASS) or not has_json
    assert config == before


@given(configs, st.booleans(), st.booleans(), st.none() | st.just("a template"))
def test_the_custom_format_declares_nothing_of_hfs(
    config: dict[str, Any], has_json: bool, slow: bool, template: str | None
):
    made = for_custom(for_hf(config, has_json=has_json), template, has_slow_files=slow)
    assert not declared_in(made)
    assert "processor_class" not in made
    assert made.get("chat_template") == template
    assert declared_in(for_custom(config, template, has_slow_files=slow)) == set()


def test_both_versions_of_one_tokenizer_become_the_same():
    made = [for_hf(config, has_json=True) for config in (SAVED_4, SAVED_5)]
    assert made[1].items() <= made[0].items()
    assert made[0].keys() - made[1].keys() == {"added_tokens_decoder"}
    assert made[0]["extra_special_tokens"] == SAVED_4["extra_special_tokens"]
    assert made[0]["additional_special_tokens"] == SAVED_4["additional_special_tokens"]


def test_version_5s_words_in_those_of_4():
    old = in_old_spelling(SAVED_5)
    assert old["additional_special_tokens"] == SAVED_4["additional_special_tokens"]
    assert old["extra_special_tokens"] == SAVED_4["extra_special_tokens"]
    assert old.keys().isdisjoint({"backend", "is_local", "local_files_only", "model_specific_special_tokens"})
    assert in_old_spelling(SAVED_4) == SAVED_4
    assert in_old_spelling({"tokenizer_class": "TokenizersBackend"}) == {"tokenizer_class": "PreTrainedTokenizerFast"}


def test_named_tokens_of_both_spellings_are_kept():
    config = {"extra_special_tokens": {"a": "<a>", "b": "<b>"}, "model_specific_special_tokens": {"b": "<c>"}}
    assert in_old_spelling(config) == {"extra_special_tokens": {"a": "<a>", "b": "<c>"}}


def test_a_qwen2_tokenizer_for_hf_and_back():
    made = for_hf(BPE, has_json=True)
    assert made["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert made["model_input_names"] == ["input_ids", "attention_mask"]
    assert made["added_tokens_decoder"] == BPE["added_tokens_decoder"]
    assert made.keys().isdisjoint({"add_bos_token", "legacy", "add_eos_token"})
    back = for_custom(made, BPE["chat_template"], has_slow_files=False)
    assert back["chat_template"] == BPE["chat_template"]
    assert "extra_special_tokens" not in back


def test_a_class_that_stays_keeps_its_own_settings():
    config = {"tokenizer_class": "Qwen2Tokenizer", "add_bos_token": False}
    assert for_hf(config, has_json=False) == {**config, "extra_special_tokens": DECLARED}
    assert for_custom(config, None, has_slow_files=True) == config


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        (
            "Qwen2TokenizerFast",
            {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>"},
        ),
        ("LlamaTokenizer", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "padding_side": "left"}),
        ("InternLM3Tokenizer", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
        ("InternLM2Tokenizer", {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}),
        ("Another", {}),
    ],
)
def test_the_generic_class_is_told_what_the_named_one_knows_unasked(name: str, defaults: dict[str, str]):
    made = for_hf({"tokenizer_class": name}, has_json=True)
    assert made.items() >= defaults.items()
    stated = for_hf({"tokenizer_class": name, "eos_token": None}, has_json=True)
    assert stated["eos_token"] is None


def test_tokens_that_are_not_the_processors_stay():
    config = {"extra_special_tokens": {"context_image_token": "<IMG_CONTEXT>", "boi_token": "<boi>"}}
    assert for_custom(config, None, has_slow_files=True) == {"extra_special_tokens": {"boi_token": "<boi>"}}
    assert for_hf(config, has_json=False)["extra_special_tokens"] == {**DECLARED, "boi_token": "<boi>"}
    assert without_declared({"video_token": "<video>", "eos_token": "x"}) == {"eos_token": "x"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [({"tokenizer_class": "LlamaTokenizerFast"}, "LlamaTokenizer"), ({"tokenizer_class": "Own"}, "Own"), ({}, "")],
)
def test_the_fast_and_the_slow_class_have_one_name(config: dict[str, str], expected: str):
    assert class_name(config) == expected


@pytest.mark.parametrize("stated", ["<a>", {"content": "<a>", "special": True}])
def test_a_token_is_read_alone_or_with_its_flags(stated: Any):
    assert special_token({"bos_token": stated}, "bos_token", "<s>") == "<a>"


@pytest.mark.parametrize("stated", [None, 5, [], {}, {"content": 5}, ["<a>"]])
def test_a_token_that_is_no_text_is_the_default(stated: Any):
    assert special_token({"bos_token": stated}, "bos_token", "<s>") == "<s>"
    assert special_token({}, "bos_token", "<s>") == "<s>"


ODD = [None, True, 5, 0.5, "text", [], ["text", 5, None], {"a": 5, "b": [None]}, [[[]]]]


@pytest.mark.parametrize("odd", ODD, ids=repr)
@pytest.mark.parametrize("name", [*BPE, "extra_special_tokens", "model_specific_special_tokens", "auto_map"])
def test_no_value_of_a_wrong_type_is_a_traceback(name: str, odd: Any):
    for base in (BPE, SAVED_5, {"model_specific_special_tokens": {"x": "<x>"}}):
        config = {**base, name: odd}
        for_hf(config, has_json=True)
        made = for_custom(config, "template", has_slow_files=False)
        assert made["chat_template"] == "template"
        assert not declared_in(made)
