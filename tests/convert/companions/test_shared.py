"""What decides about a directory: whole tokenizers, classes that can load, modules on the hub, systems as parts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from metadata.describing import changed, custom_config, hf_config
from support import DATA
from tokenizers import Tokenizer

from internvl_bridge.convert.companions.remote_code import missing_modules, tokenizer_at_hub
from internvl_bridge.errors import CompanionFileError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.chat.choice import choose_chat
from internvl_bridge.metadata.chat.conversations import CONVERSATIONS
from internvl_bridge.metadata.chat.template import (
    built_template,
    for_custom,
    system_message,
    with_system_message,
    without_system_message,
)
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.config.tiling import Tiling, hf_tiling
from internvl_bridge.metadata.other_format import OtherFormat, read_sidecar, reference_as_other_format
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.metadata.tokenizer.files import can_load
from internvl_bridge.metadata.tokenizer.tokenizer_json import check_whole, read_front

WHOLE = (DATA / "tokenizers" / "bpe" / "tokenizer.json").read_bytes()
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 11421896\n"


# A tokenizer.json that breaks off.


@pytest.mark.parametrize("end", [b"", b"\n", b"  \r\n\r\n"])
def test_a_whole_tokenizer_is_taken(end: bytes, tmp_path: Path):
    (tmp_path / "tokenizer.json").write_bytes(WHOLE.rstrip() + end)
    check_whole(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "text",
    [
        *(b"", POINTER, b"not found", b"[]", b"{}", b"\xff\xfe\0", b"<!DOCTYPE html><html></html>"),
        *(WHOLE[: len(WHOLE) // 2], WHOLE[:40], WHOLE.rstrip().rstrip(b"} \n"), WHOLE[:-200] + b"\0" * 200),
    ],
)
def test_a_tokenizer_that_is_not_whole_is_refused_by_name(text: bytes, tmp_path: Path):
    (tmp_path / "tokenizer.json").write_bytes(text)
    with pytest.raises(
        CompanionFileError, match=rf"{tmp_path}/tokenizer\.json is no tokenizer\.json, or breaks off\. Down"
    ):
        check_whole(tmp_path / "tokenizer.json")


def test_a_whole_tokenizer_whose_model_stands_first_is_taken(tmp_path: Path):
    """The tokenizers library reads the entries in any order."""
    values = json.loads(WHOLE)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": values.pop("model"), **values}))
    assert Tokenizer.from_file(str(path)).token_to_id("<IMG_CONTEXT>") == 590
    check_whole(path)


def test_the_head_of_a_whole_tokenizer_has_its_post_processor(tmp_path: Path):
    (tmp_path / "tokenizer.json").write_bytes(WHOLE)
    expected = {name: value for name, value in json.loads(WHOLE).items() if name != "model"}
    assert read_front(tmp_path / "tokenizer.json") == expected


# Which files a class can load.

PAIRS = ["vocab.json", "merges.txt"]


@pytest.mark.parametrize(
    ("stated", "names", "expected"),
    [
        ("InternLM2Tokenizer", ["tokenizer.model"], True),
        ("InternLM2TokenizerFast", ["tokenizer.model"], True),
        ("InternLM2Tokenizer", ["tokenizer.json", *PAIRS], False),
        ("LlamaTokenizer", ["tokenizer.model"], True),
        ("LlamaTokenizerFast", ["tokenizer.json"], True),
        ("LlamaTokenizer", PAIRS, False),
        ("PreTrainedTokenizerFast", ["tokenizer.json"], True),
        ("PreTrainedTokenizerFast", ["tokenizer.model", *PAIRS], False),
        ("Qwen2Tokenizer", ["tokenizer.json"], True),
        ("Qwen2Tokenizer", PAIRS, True),
        ("Qwen2TokenizerFast", ["vocab.json"], False),
        ("Qwen2Tokenizer", ["merges.txt"], False),
        ("Qwen2Tokenizer", ["tokenizer.model"], False),
        (None, ["tokenizer.json"], True),
        (None, PAIRS, True),
        (None, [], False),
    ],
)
def test_a_class_can_load_what_it_reads(stated: str | None, names: list[str], expected: bool):
    config = {} if stated is None else {"tokenizer_class": stated}
    assert can_load(config, [*names, "tokenizer_config.json"]) is expected


# A tokenizer's own module.

AT_HUB = "OpenGVLab/InternVL2_5-8B--tokenization_internlm2.InternLM2Tokenizer"
LOCAL = "tokenization_internlm2.InternLM2Tokenizer"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([LOCAL, None], [AT_HUB, None]),
        ([None, LOCAL], [None, AT_HUB]),
        ([LOCAL, LOCAL], [AT_HUB, AT_HUB]),
        ([AT_HUB, None], [AT_HUB, None]),
        ([LOCAL, "me/mine--other.Fast"], [AT_HUB, "me/mine--other.Fast"]),
        ([LOCAL, 5], [AT_HUB, 5]),
    ],
)
def test_a_tokenizers_module_is_found_at_the_hub(stated: Any, expected: Any):
    config = {"eos_token": "</s>", "auto_map": {"AutoTokenizer": stated}}
    made = tokenizer_at_hub(config)
    assert made == {"eos_token": "</s>", "auto_map": {"AutoTokenizer": expected}}
    assert missing_modules(made, []) == []
    assert config["auto_map"] == {"AutoTokenizer": stated}


def test_a_tokenizers_module_that_is_named_alone_is_found_at_the_hub():
    """transformers takes a text for the slow class."""
    made = tokenizer_at_hub({"auto_map": {"AutoTokenizer": LOCAL}})["auto_map"]["AutoTokenizer"]
    assert made in (AT_HUB, [AT_HUB], [AT_HUB, None])


@pytest.mark.parametrize(
    ("auto_map", "expected"),
    [
        ({"AutoTokenizer": [LOCAL, None]}, ["tokenization_internlm2.py"]),
        ({"AutoTokenizer": [None, "fast.Fast"], "AutoConfig": "slow.Slow"}, ["fast.py", "slow.py"]),
        ({"AutoTokenizer": LOCAL}, ["tokenization_internlm2.py"]),
        ({"AutoTokenizer": [AT_HUB, None]}, []),
        ({"AutoTokenizer": [None, None], "AutoModel": {}}, []),
        (["AutoTokenizer"], []),
        (None, []),
    ],
)
def test_the_modules_that_a_tokenizer_needs_are_known(auto_map: Any, expected: list[str]):
    assert missing_modules({"auto_map": auto_map}, ["other.py"]) == expected
    assert missing_modules({"auto_map": auto_map}, expected) == []


# A default system message for a template that takes parts only.

LOOP = (
    "{{% for message in messages %}}<|im_start|>{{{{ message['role'] }}}}\n"
    "{{% for part in {content} %}}"
    "{{% if part['type'] == 'text' %}}{{{{ part['text'] }}}}"
    "{{% elif part['type'] == 'image' %}}<image>\n{{% else %}}{{{{ raise_exception('what?') }}}}{{% endif %}}"
    "{{% endfor %}}<|im_end|>\n{{% endfor %}}"
    "{{% if add_generation_prompt %}}<|im_start|>assistant\n{{% endif %}}"
)
PARTS_ONLY = [
    LOOP.format(content=content)
    for content in ("message['content']", 'message["content"]', "message.content", "message[ 'content' ]")
]
STRINGS_TOO = built_template(CONVERSATIONS["internvl2_5"])
USER = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Hi"}]}
RENDERED = "<|im_start|>user\n<image>\nHi<|im_end|>\n<|im_start|>assistant\n"


def render(template: str, *messages: dict[str, Any]) -> str:
    """As transformers renders a chat template."""

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(template).render(messages=list(messages), add_generation_prompt=True)


@pytest.mark.parametrize("template", PARTS_ONLY)
@pytest.mark.parametrize("message", ["Be brief.", '书 "quoted" \\ {{ no }} {% if %}\n\ttail', ""])
def test_a_template_that_takes_parts_only_renders_a_default_system_message(template: str, message: str):
    made = with_system_message(template, message)
    assert render(made, USER) == f"<|im_start|>system\n{message}<|im_end|>\n{RENDERED}"
    own = {"role": "system", "content": [{"type": "text", "text": "Mine."}]}
    assert render(made, own, USER) == f"<|im_start|>system\nMine.<|im_end|>\n{RENDERED}"


def test_a_template_that_names_the_parts_first_renders_a_default_system_message():
    template = LOOP.format(content="content").replace("<|im_start|>{{", "{% set content = message.content %}{{", 1)
    template = template.replace("{{ message['role'] }}", "<|im_start|>{{ message['role'] }}")
    assert render(template, USER) == RENDERED
    assert render(with_system_message(template, "Be brief."), USER) == (
        f"<|im_start|>system\nBe brief.<|im_end|>\n{RENDERED}"
    )


@given(message=st.text(st.characters(exclude_categories=["Cs"])), later=st.text(max_size=5))
@pytest.mark.parametrize("template", [PARTS_ONLY[0], STRINGS_TOO])
def test_a_default_system_message_is_found_and_taken_out_again(template: str, message: str, later: str):
    made = with_system_message(template, message)
    assert system_message(made) == message
    assert without_system_message(made) == template
    assert with_system_message(made, later) == with_system_message(template, later)
    assert system_message(template) is None


def test_a_template_that_takes_strings_gets_a_string():
    """One that tests for strings, as upstream's own do, may do anything with parts."""
    assert '"content": ' not in with_system_message(STRINGS_TOO, "x")
    assert "'content': \"x\"}" in with_system_message(STRINGS_TOO, "x")
    assert "'content': \"x\"}" in with_system_message("{% for m in messages %}{{ m.content }}{% endfor %}", "x")


# How images are cut.


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"max_patches": 6}, Tiling(1, 6)),
        ({"min_patches": 4}, Tiling(4, 12)),
        ({"size": {"height": 56, "width": 56}}, Tiling(1, 12)),
        ({"min_patches": None, "max_patches": None}, Tiling(1, 12)),
        ({"min_patches": None, "max_patches": 24, "crop_to_patches": False}, Tiling(1, 24)),
        ({"min_patches": 3, "max_patches": 3}, Tiling(3, 3)),
        ({}, None),
    ],
)
def test_a_tiling_that_is_stated_in_part_has_the_class_defaults(stated: dict[str, Any], expected: Tiling | None):
    assert hf_tiling(stated) == expected


@pytest.mark.parametrize("odd", [0, -1, True, False, "12", 6.0, 2**31, [6], {}])
@pytest.mark.parametrize("name", ["min_patches", "max_patches"])
def test_a_tiling_that_is_nonsense_is_refused(name: str, odd: Any):
    shown = re.escape(f"{name} {odd!r}")
    with pytest.raises(CompanionFileError, match=rf"{shown}.*by which no image can be cut.*preprocessor_config\.json"):
        hf_tiling({name: odd})


@pytest.mark.parametrize("stated", [{"min_patches": 7, "max_patches": 6}, {"min_patches": 13}])
def test_a_tiling_with_more_tiles_at_least_than_at_most_is_refused(stated: dict[str, Any]):
    with pytest.raises(CompanionFileError, match=f"min_patches {stated['min_patches']} and max_patches"):
        hf_tiling(stated)


# How a model is spoken to.

OTHER = for_custom(built_template(CONVERSATIONS["phi3-chat"]))


def test_an_own_template_of_another_conversation_is_kept_and_gets_that_ones_message():
    chat = choose_chat("internvl2_5", OTHER, None)
    expected = CONVERSATIONS["phi3-chat"].system_message
    assert chat.template == with_system_message(built_template(CONVERSATIONS["phi3-chat"]), expected)
    assert expected != CONVERSATIONS["internvl2_5"].system_message
    assert chat.turn_end == "<|end|>"
    [note] = chat.notes
    assert note.startswith("The tokenizer's own chat template is kept, although it does not render the 'internvl2_5'")


@pytest.mark.parametrize("name", ["Hermes-2", "internlm2-chat", "internvl2_5"])
def test_an_own_template_that_differs_in_line_breaks_only_gets_the_named_ones_message(name: str):
    chat = choose_chat(name, for_custom(STRINGS_TOO), None)
    assert system_message(chat.template or "") == CONVERSATIONS[name].system_message
    assert chat.notes == ()


def test_an_own_template_that_renders_nothing_known_gets_the_named_ones_message():
    chat = choose_chat("internvl2_5", "{{ messages }}<image>", None)
    assert system_message(chat.template or "") == CONVERSATIONS["internvl2_5"].system_message
    assert chat.notes == ()


def test_no_system_message_leaves_an_own_template_as_it_is_and_says_so():
    chat = choose_chat("internvl2_5", for_custom(STRINGS_TOO), "none")
    assert chat.template == STRINGS_TOO
    [note] = chat.notes
    assert "a system message of its own making stays in it" in note
    assert choose_chat("internvl2_5", None, "none").notes == ()
    assert choose_chat("internvl2_5", for_custom(STRINGS_TOO), "Be brief.").notes == ()


@pytest.mark.parametrize("own", [None, "{{ messages }}"])
def test_a_system_message_that_cannot_be_rendered_is_mentioned(own: str | None):
    asked, silent = choose_chat("future", own, "Be brief."), choose_chat("future", own, None)
    lost = "The system message that was asked for is not rendered."
    assert [lost in note for note in asked.notes] == [True]
    assert [lost in note for note in silent.notes] == [False]
    assert (asked.template, asked.turn_end) == (own, None)
    assert "Be brief." not in (asked.template or "")


# A reference beside a sidecar.


def reference_with(tmp_path: Path, sidecar_family: str) -> tuple[OtherFormat, str]:
    """The complement of a Qwen2 reference beside a sidecar of the model ``sidecar_family``, and its config.json."""
    values = custom_config(sidecar_family)
    family = {"qwen2": "Qwen2", "qwen3": "Qwen3"}[sidecar_family.partition("-")[0]]
    kept = {"config.json": json.dumps(values), "README.md": "kept", "preprocessor_config.json": "{}"}
    contents = {"version": 2, "source_format": "custom", "family": family, "files": kept, "written": {"x.json": "d"}}
    (tmp_path / SIDECAR_FILE).write_text(json.dumps(contents))
    home = tmp_path / "reference"
    home.mkdir()
    text = json.dumps(changed(custom_config("qwen2-300m"), None, template="Hermes-2"))
    (home / "config.json").write_text(text)
    (home / "preprocessor_config.json").write_text('{"size": 56}')
    sidecar = read_sidecar(tmp_path, Format.CUSTOM)
    return reference_as_other_format(read_config(home), Format.CUSTOM, (), sidecar), text


def test_a_reference_wins_and_the_sidecar_keeps_the_rest(tmp_path: Path):
    other_format, text = reference_with(tmp_path, "qwen2-300m")
    assert other_format.files == {
        "config.json": text,
        "README.md": "kept",
        "preprocessor_config.json": '{"size": 56}',
    }
    assert other_format.written == {"x.json": "d"}
    assert other_format.description.values["template"] == "Hermes-2"
    assert other_format.origin == tmp_path / "reference"
    assert other_format.is_reference


def test_a_sidecar_of_another_family_keeps_nothing_beside_a_reference(tmp_path: Path):
    other_format, text = reference_with(tmp_path, "qwen3-300m")
    assert other_format.files == {"config.json": text, "preprocessor_config.json": '{"size": 56}'}
    assert other_format.written == {}


# A sidecar that cannot be used.


def sidecar_at(directory: Path, format_: str, **files: str) -> Path:
    config = custom_config("qwen2-300m") if format_ == "custom" else hf_config("qwen2-300m@state-dict")
    kept = {"config.json": json.dumps(config)} | {name.replace("__", "."): text for name, text in files.items()}
    contents = {"version": 2, "source_format": format_, "family": "Qwen2", "files": kept, "written": {}}
    (directory / SIDECAR_FILE).write_text(json.dumps(contents))
    return directory


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"<<<<<<< HEAD", b'{"version": 2, "version": 2}'])
def test_a_sidecar_that_cannot_be_parsed_says_what_to_do(text: bytes, tmp_path: Path):
    (tmp_path / SIDECAR_FILE).write_bytes(text)
    with pytest.raises(
        CompanionFileError, match=rf"{SIDECAR_FILE} cannot be used: \S[^.]*\S\. Remove it to convert without it"
    ):
        read_sidecar(tmp_path, Format.CUSTOM)


def test_a_sidecar_that_is_a_large_file_says_what_to_do(tmp_path: Path):
    with (tmp_path / SIDECAR_FILE).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(CompanionFileError, match=rf"{SIDECAR_FILE} cannot be used: .*Remove it to convert without it"):
        read_sidecar(tmp_path, Format.CUSTOM)


@pytest.mark.parametrize("format_", ["custom", "hf"])
@pytest.mark.parametrize("name", ["generation_config__json", "tokenizer_config__json", "preprocessor_config__json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\ufffe"])
def test_garbage_in_a_sidecar_is_refused(format_: str, name: str, text: str, tmp_path: Path):
    inside = name.replace("__", ".")
    with pytest.raises(
        CompanionFileError, match=f"{SIDECAR_FILE} cannot be used: the {inside} in it is .*Remove it to conv"
    ):
        read_sidecar(sidecar_at(tmp_path, format_, **{name: text}), Format(format_))


def test_a_text_that_nobody_reads_may_be_anything(tmp_path: Path):
    """The HF processor's files mean nothing to a custom checkpoint."""
    found = read_sidecar(sidecar_at(tmp_path, "custom", processor_config__json="[]", README__md="{"), Format.CUSTOM)
    assert found.files.keys() == {"config.json", "processor_config.json", "README.md"}
    with pytest.raises(CompanionFileError, match=r"the processor_config\.json in it is"):
        read_sidecar(sidecar_at(tmp_path, "hf", processor_config__json="[]"), Format.HF)


def test_a_spoilt_sidecar_of_the_format_at_hand_is_not_read(tmp_path: Path):
    assert read_sidecar(sidecar_at(tmp_path, "hf", generation_config__json="{"), Format.CUSTOM) is None
