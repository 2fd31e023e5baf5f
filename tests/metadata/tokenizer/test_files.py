"""The tokenizer's files: which are there, and where its chat template stands."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.tokenizer.files import can_load, read_tokenizer_files

LIMIT = 1 << 20


def put(directory: Path, **texts: Any) -> Path:
    """Write files whose names are given with ``__`` for the dot; what is no text is written as JSON."""
    for name, value in texts.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (directory / name.replace("__", ".")).write_bytes(text.encode())
    return directory


def test_a_directory_without_any_has_none(tmp_path: Path):
    files = read_tokenizer_files(tmp_path)
    assert (files.home, files.config, files.template) == (tmp_path, {}, None)
    assert not files.has_json
    assert not files.has_slow_files


@pytest.mark.parametrize(
    ("names", "slow"),
    [
        (["tokenizer.json"], False),
        (["vocab.json"], False),
        (["merges.txt"], False),
        (["vocab.json", "merges.txt"], True),
        (["tokenizer.model"], True),
    ],
)
def test_what_is_there_is_known(names: list[str], slow: bool, tmp_path: Path):
    for name in names:
        (tmp_path / name).touch()
    files = read_tokenizer_files(tmp_path)
    assert files.has_slow_files is slow
    assert files.has_json is ("tokenizer.json" in names)


def test_the_template_is_read_where_transformers_looks_first(tmp_path: Path):
    put(tmp_path, tokenizer_config__json={"chat_template": "third", "eos_token": "x"})
    assert read_tokenizer_files(tmp_path).template == "third"
    put(tmp_path, chat_template__json={"chat_template": "second"})
    assert read_tokenizer_files(tmp_path).template == "second"
    put(tmp_path, chat_template__jinja="first\r\n书")
    assert read_tokenizer_files(tmp_path).template == "first\r\n书"
    assert read_tokenizer_files(tmp_path).config == {"chat_template": "third", "eos_token": "x"}


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}], "b"),
        ([{"name": "tool_use", "template": "a"}], None),
        ([5, None, "text", {"template": "a"}], None),
        ([{"name": "default"}], None),
        ([], None),
        (None, None),
        ("", ""),
    ],
)
def test_of_several_templates_the_default_one_is_taken(stated: Any, expected: str | None, tmp_path: Path):
    put(tmp_path, tokenizer_config__json={"chat_template": stated})
    assert read_tokenizer_files(tmp_path).template == expected


@pytest.mark.parametrize("stated", [5, True, {"default": "x"}, [{"name": "default", "template": 5}], "x" * (LIMIT + 1)])
def test_a_template_that_is_no_text_is_refused_by_name(stated: Any, tmp_path: Path):
    put(tmp_path, tokenizer_config__json={"chat_template": stated})
    with pytest.raises(
        CompanionFileError, match=r"tokenizer_config\.json holds a chat template.*Correct it, or remove it"
    ):
        read_tokenizer_files(tmp_path)


@pytest.mark.parametrize("text", [b"\xff\xfe", b"x" * (2 * LIMIT + 1), b"x" * (4 * LIMIT)])
def test_a_jinja_file_that_is_no_template_is_refused_by_name(text: bytes, tmp_path: Path):
    (tmp_path / "chat_template.jinja").write_bytes(text)
    with pytest.raises(
        CompanionFileError, match=r"chat_template\.jinja holds a chat template that is not text, or has more"
    ):
        read_tokenizer_files(tmp_path)


def test_the_largest_template_is_read_whole(tmp_path: Path):
    put(tmp_path, chat_template__jinja="x" * LIMIT)
    assert read_tokenizer_files(tmp_path).template == "x" * LIMIT


@pytest.mark.parametrize("text", ["a" + "é" * (LIMIT * 3 // 4), "aa" + "书" * (LIMIT // 2), "🐱" * (LIMIT // 2)])
def test_a_template_is_never_cut_off(text: str, tmp_path: Path):
    """Fewer characters than the limit, and more bytes: it may be refused."""
    put(tmp_path, chat_template__jinja=text)
    with suppress(CompanionFileError):
        assert read_tokenizer_files(tmp_path).template == text


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"])
def test_a_directory_or_a_dangling_link_in_its_place_is_refused_by_name(name: str, tmp_path: Path):
    (tmp_path / name).mkdir()
    with pytest.raises(CompanionFileError, match=f"{name} exists, but is not a file"):
        read_tokenizer_files(tmp_path)
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(CompanionFileError, match=f"{name} is a link to nowhere"):
        read_tokenizer_files(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.json"])
@pytest.mark.parametrize("text", [b"[]", b"null", b"5", b"{", b"\xff", b'{"a": 1, "a": 2}', b"[" * 5000, b""])
def test_what_is_no_json_object_is_refused_by_name(name: str, text: bytes, tmp_path: Path):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(CompanionFileError, match=f"{name} cannot be used"):
        read_tokenizer_files(tmp_path)


def test_links_are_followed_as_the_hubs_cache_has_them(tmp_path: Path):
    (tmp_path / "blob").write_text('{"chat_template": "x"}')
    (tmp_path / "tokenizer_config.json").symlink_to("blob")
    assert read_tokenizer_files(tmp_path).template == "x"


PAIRS = ["vocab.json", "merges.txt"]


@pytest.mark.parametrize(
    ("stated", "names", "expected"),
    [
        ("InternLM2Tokenizer", ["tokenizer.model"], True),
        ("InternLM3Tokenizer", ["tokenizer.model"], True),
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
