"""tokenizer.json is read up to its vocabulary, and changed nowhere but in its post-processor."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import DATA
from tokenizers import Tokenizer

from internvl_bridge.errors import BridgeError, CompanionFileError
from internvl_bridge.metadata.tokenizer.tokenizer_json import (
    check_whole,
    read_front,
    surrounding_tokens,
    template_processing,
    with_post_processor,
)

BPE = DATA / "tokenizers" / "bpe" / "tokenizer.json"
BYTES = {"type": "ByteLevel", "add_prefix_space": False}
SEQUENCE: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}

tokens = st.none() | st.sampled_from(["<s>", "</s>", "<|begin|>"])


def token(name: str) -> dict[str, Any]:
    return {"SpecialToken": {"id": name, "type_id": 0}}


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_the_head_is_everything_but_the_vocabulary():
    whole = json.loads(BPE.read_text())
    assert read_front(BPE) == {name: value for name, value in whole.items() if name != "model"}
    assert read_front(BPE)["added_tokens"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", '{"model": {"vocab": {}}}', '{"model": {}, "added_tokens": []}'),
        *('{"added_tokens": [, "model": {', '{"a": {"b": 1, "model": {}}, "model": {}}', "\0" * 50),
        *(b'{"a": "\xff", "model": {', '"text", "model": {', "[" * 100_000 + ', "model": {', '[1, "model": {'),
        '{"a": ' + "9" * 5000 + ', "model": {',
    ],
    ids=lambda text: str(text)[:20],
)
def test_what_has_no_head_has_an_empty_one(text: str | bytes, tmp_path: Path):
    assert read_front(write(tmp_path / "tokenizer.json", text)) == {}


def test_spaces_before_the_vocabulary_do_not_matter(tmp_path: Path):
    text = '{"version": "1.0" ,\r\n\t"model"  :\n {"vocab": broken'
    assert read_front(write(tmp_path / "tokenizer.json", text)) == {"version": "1.0"}


def test_the_word_model_within_a_text_is_not_the_vocabulary(tmp_path: Path):
    values = {"a": ', "model": {', "model": {"vocab": {}}}
    assert read_front(write(tmp_path / "tokenizer.json", json.dumps(values))) == {"a": ', "model": {'}


def test_a_file_larger_than_any_is_not_read(tmp_path: Path):
    path = write(tmp_path / "tokenizer.json", '{"version": "1.0", "model": {')
    assert read_front(path) == {"version": "1.0"}
    os.truncate(path, (256 << 20) + 1)
    assert read_front(path) == {}


def test_another_post_processor_is_all_that_changes(tmp_path: Path):
    wanted = template_processing("<|im_start|>", None, {"<|im_start|>": 473})
    path = write(tmp_path / "tokenizer.json", with_post_processor(BPE, wanted))
    assert json.loads(path.read_text()) == {**json.loads(BPE.read_text()), "post_processor": wanted}
    vocabulary = BPE.read_bytes().partition(b'"model"')[2]
    assert path.read_bytes().endswith(vocabulary)
    before, after = Tokenizer.from_file(str(BPE)), Tokenizer.from_file(str(path))
    assert after.encode("A cat.").ids == [473, *before.encode("A cat.").ids]
    assert after.encode("A", "cat").ids == [473, *before.encode("A").ids, *before.encode("cat").ids]


@pytest.mark.parametrize(
    "text", ['{"a": "\\ud800", "model": {"vocab": {}}}', b'{"a": 1, "model": {"vocab": {"\xff": 1}}}']
)
def test_a_file_that_is_no_unicode_is_never_a_traceback(text: str | bytes, tmp_path: Path):
    path = write(tmp_path / "tokenizer.json", text)
    with suppress(BridgeError):
        assert not read_front(path) or with_post_processor(path, BYTES).encode().startswith(b"{")


@given(tokens, tokens)
def test_a_template_says_what_surrounds_a_text(bos: str | None, eos: str | None):
    ids = {name: number for number, name in enumerate(sorted({bos or "", eos or ""}))}
    made = template_processing(bos, eos, ids)
    expected = ([bos] if bos else [], [eos] if eos else [])
    assert surrounding_tokens(made) == expected
    assert surrounding_tokens({"type": "Sequence", "processors": [BYTES, made]}) == expected


@pytest.mark.parametrize("nothing", [None, BYTES, {"type": "Sequence", "processors": []}])
def test_what_adds_nothing(nothing: Any):
    assert surrounding_tokens(nothing) == ([], [])
    assert surrounding_tokens({"type": "Sequence", "processors": [nothing, BYTES]}) == ([], [])


def test_several_tokens_keep_their_order():
    single = [token("<a>"), token("<b>"), SEQUENCE, token("<c>"), token("<d>")]
    found = surrounding_tokens({"type": "TemplateProcessing", "single": single})
    assert found == (["<a>", "<b>"], ["<c>", "<d>"])


@pytest.mark.parametrize(
    "unclear",
    [
        {"type": "BertProcessing", "sep": ["x", 1]},
        {"type": "TemplateProcessing", "single": [token("<s>")]},
        {"type": "TemplateProcessing", "single": [SEQUENCE, SEQUENCE]},
        {"type": "TemplateProcessing", "single": "A"},
        {"type": "TemplateProcessing"},
        {"type": "TemplateProcessing", "single": [5, None]},
        {"type": "Sequence", "processors": [template_processing("a", None, {}), template_processing("b", None, {})]},
        {"type": "Sequence", "processors": [BYTES, {"type": "Unknown"}]},
        {"type": "Sequence", "processors": {}},
        {},
        [],
        "ByteLevel",
        5,
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_clear_is_none(unclear: Any):
    assert surrounding_tokens(unclear) is None


def test_deep_nesting_is_never_a_traceback(tmp_path: Path):
    """Either it is too deep to be read, or it is not too deep to be understood."""
    for depth in (*range(400, 520), 1000, 4000):
        nested = '{"type": "Sequence", "processors": [' * depth + "]}" * depth
        front = read_front(write(tmp_path / "tokenizer.json", f'{{"post_processor": {nested}, "model": {{}}}}'))
        assert not front or surrounding_tokens(front["post_processor"]) == ([], [])


WHOLE = (DATA / "tokenizers" / "bpe" / "tokenizer.json").read_bytes()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 11421896\n"


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
        CompanionFileError, match=rf"{tmp_path}/tokenizer\.json is not a tokenizer\.json, or is cut off\. Down"
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
