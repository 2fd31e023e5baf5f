"""The id of <IMG_CONTEXT> is looked up in the tokenizer files, which must agree."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import DATA

from internvl_bridge.convert.companions.shared import carried_files
from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.files import TOKENIZER_FILES, has_tokenizer, remote_code
from internvl_bridge.metadata.tokenizer.token_ids import find_token, required_token_id, token_id

TOKEN = "<IMG_CONTEXT>"  # noqa: S105


def write(directory: Path, **files: Any) -> Path:
    """Write ``name.json`` for every keyword; text goes in as it is."""
    for name, contents in files.items():
        text = contents if isinstance(contents, str) else json.dumps(contents)
        (directory / f"{name}.json").write_text(text)
    return directory


def tokenizer_json(number: Any) -> dict[str, Any]:
    others = [{"id": 1, "content": "<img>"}, {"id": 3, "content": "</img>"}]
    entry = {"id": number, "content": TOKEN, "single_word": False, "special": True}
    return {"version": "1.0", "added_tokens": [others[0], entry, others[1]], "model": {"vocab": {TOKEN: 5}}}


def tokenizer_config(number: str) -> dict[str, Any]:
    return {"added_tokens_decoder": {"1": {"content": "<img>"}, number: {"content": TOKEN}}}


@pytest.mark.parametrize("name", ["bpe", "internlm2"])
def test_the_stored_tokenizers_know_the_token(name: str) -> None:
    assert required_token_id(DATA / "tokenizers" / name, TOKEN) == 590


def test_stored_files_all_say_the_same() -> None:
    found = find_token(DATA / "tokenizers" / "bpe", TOKEN)

    assert found == {"tokenizer.json": 590, "added_tokens.json": 590, "tokenizer_config.json": 590}


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer": tokenizer_json(151671)},
        {"added_tokens": {TOKEN: 151671, "<img>": 1}},
        {"tokenizer_config": tokenizer_config("151671")},
    ],
    ids=lambda files: next(iter(files)),
)
def test_any_one_file_suffices(tmp_path: Path, files: dict[str, Any]) -> None:
    assert required_token_id(write(tmp_path, **files), TOKEN) == 151671


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" , ", " : ")])
def test_tokenizer_json_is_understood_however_it_is_laid_out(
    tmp_path: Path, indent: int | None, separators: tuple[str, str]
) -> None:
    write(tmp_path, tokenizer=json.dumps(tokenizer_json(7), indent=indent, separators=separators))

    assert required_token_id(tmp_path, TOKEN) == 7


def test_the_order_within_an_entry_does_not_matter(tmp_path: Path) -> None:
    entry = {"content": TOKEN, "special": True, "id": 9}
    write(tmp_path, tokenizer={"added_tokens": [entry], "model": {}})

    assert required_token_id(tmp_path, TOKEN) == 9


def test_a_token_of_the_vocabulary_is_no_added_one(tmp_path: Path) -> None:
    vocabulary = {"model": {"vocab": {TOKEN: 5}, "added_tokens": [{"content": TOKEN, "id": 6}]}}
    write(tmp_path, tokenizer={"added_tokens": [], **vocabulary})

    assert find_token(tmp_path, TOKEN) == {}


def test_the_vocabulary_of_tokenizer_json_is_not_even_parsed(tmp_path: Path) -> None:
    head = json.dumps({"added_tokens": [{"id": 9, "content": TOKEN}]}).removesuffix("}")
    write(tmp_path, tokenizer=f'{head}, "model": {{"vocab": no JSON at all')

    assert required_token_id(tmp_path, TOKEN) == 9


def test_a_longer_token_is_another_token(tmp_path: Path) -> None:
    write(tmp_path, tokenizer={"added_tokens": [{"id": 9, "content": f"x{TOKEN}"}], "model": {}})

    assert find_token(tmp_path, TOKEN) == {}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"tokenizer": tokenizer_json(5)}, {"added_tokens": {TOKEN: 6}}),
        ({"added_tokens": {TOKEN: 5}}, {"tokenizer_config": tokenizer_config("6")}),
        ({"tokenizer": tokenizer_json(5)}, {"tokenizer_config": tokenizer_config("6")}),
    ],
)
def test_files_that_disagree_are_all_named(tmp_path: Path, first: dict[str, Any], second: dict[str, Any]) -> None:
    write(tmp_path, **first, **second)

    with pytest.raises(CompanionFileError, match="disagree about the id of <IMG_CONTEXT>") as error:
        required_token_id(tmp_path, TOKEN)

    assert f"{next(iter(first))}.json says 5, {next(iter(second))}.json says 6" in error.value.reason


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"tokenizer": "", "added_tokens": {}, "tokenizer_config": {}},
        {"tokenizer": {"added_tokens": [{"id": 1, "content": "<img>"}], "model": {}}},
        {"tokenizer": '{"added_tokens": [{"content": "<IMG_CONTEXT>", "id": }], "model": {}}'},
        {"tokenizer": '{"added_tokens": [{"content": "<IMG_CONTEXT>", "id": 5, "model": {}'},
        {"tokenizer": '{"added_tokens": [{"content": "<IMG_CONTEXT>", "id": 5'},
        {"tokenizer": {"model": {}, "added_tokens": [{"content": TOKEN, "id": 5}]}},
        {"tokenizer": {"added_tokens": {TOKEN: 5}, "model": {}}},
        {"tokenizer": {"added_tokens": None, "model": {}}},
        {"tokenizer": {"added_tokens": [TOKEN, [TOKEN, 5], {"content": TOKEN}, {"id": 5}], "model": {}}},
        {"tokenizer": "["},
        {"tokenizer": f'{{"added_tokens": {"[" * 100_000}, "model": {{}}'},
        {"tokenizer": tokenizer_json("5")},
        {"tokenizer": tokenizer_json(5.0)},
        {"tokenizer": tokenizer_json(None)},
        {"tokenizer": tokenizer_json(True)},
        {"added_tokens": {TOKEN: "5"}},
        {"added_tokens": {TOKEN: False}},
        {"added_tokens": {TOKEN: [5]}},
        {"tokenizer_config": {"added_tokens_decoder": None}},
        {"tokenizer_config": {"added_tokens_decoder": [TOKEN]}},
        {"tokenizer_config": {"added_tokens_decoder": {"5": TOKEN}}},
        {"tokenizer_config": {"added_tokens_decoder": {"five": {"content": TOKEN}}}},
        {"tokenizer_config": {"added_tokens_decoder": {"-5": {"content": TOKEN}}}},
        {"tokenizer_config": {"added_tokens_decoder": {"\u00b2": {"content": TOKEN}}}},
        {"tokenizer_config": {"added_tokens_decoder": {"5": {"content": "<img>"}}}},
        {"tokenizer_config": {"added_tokens_decoder": {"9" * 5000: {"content": TOKEN}}}},
        {"added_tokens": {TOKEN: -5}},
        {"tokenizer": tokenizer_json(-5)},
    ],
)
def test_without_a_usable_id_the_directory_is_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    write(tmp_path, **files)

    with pytest.raises(CompanionFileError, match=r"No tokenizer file in .* has an id for <IMG_CONTEXT>") as error:
        required_token_id(tmp_path, TOKEN)

    assert str(tmp_path) in error.value.reason
    assert "Copy tokenizer.json" in error.value.remedy


def test_a_token_that_is_needed_is_named_when_it_is_missing(tmp_path: Path) -> None:
    write(tmp_path, added_tokens={"<img>": 1})

    assert required_token_id(tmp_path, "<img>") == 1
    assert token_id(tmp_path, "</img>") is None
    with pytest.raises(CompanionFileError, match=r"No tokenizer file in .* has an id for </img>"):
        required_token_id(tmp_path, "</img>")


def test_files_that_disagree_are_refused_even_about_a_token_that_is_not_needed(tmp_path: Path) -> None:
    write(tmp_path, added_tokens={"<|im_end|>": 1}, tokenizer_config={"added_tokens_decoder": {}})
    assert token_id(tmp_path, "<|im_end|>") == 1

    write(tmp_path, tokenizer_config={"added_tokens_decoder": {"2": {"content": "<|im_end|>"}}})
    with pytest.raises(CompanionFileError, match=r"disagree about the id of <\|im_end\|>"):
        token_id(tmp_path, "<|im_end|>")


@pytest.mark.parametrize("name", ["added_tokens", "tokenizer_config"])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1, "a": 1}'])
def test_a_malformed_file_is_refused_even_if_another_knows_the_token(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, tokenizer=tokenizer_json(5), **{name: text})

    with pytest.raises(CompanionFileError, match=f"{name}.json cannot be used"):
        required_token_id(tmp_path, TOKEN)


def test_more_tokens_beside_the_vocabulary_than_any_model_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "added_tokens.json"
    path.write_text(json.dumps({f"<{number}>": number for number in range(100_001)}))
    with pytest.raises(CompanionFileError, match=f"{path} has 100001 tokens beside the vocabulary"):
        token_id(tmp_path, "<1>")


def test_a_link_to_a_tokenizer_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to("../../blobs/gone")
    write(tmp_path, added_tokens={TOKEN: 5})

    with pytest.raises(CompanionFileError, match=r"tokenizer\.json is a link to"):
        required_token_id(tmp_path, TOKEN)


def test_the_tokenizer_comes_from_its_home_and_the_rest_from_the_model(tmp_path: Path) -> None:
    home, model = tmp_path / "home", tmp_path / "model"
    for directory in (home, model):
        directory.mkdir()
        for name in ("tokenizer.json", "vocab.json", "generation_config.json", "LICENSE", "config.json"):
            (directory / name).touch()

    assert carried_files(model, home, without=()) == (
        home / "tokenizer.json",
        home / "vocab.json",
        model / "LICENSE",
    )
    assert carried_files(model, home, without={"vocab.json", "LICENSE"}) == (home / "tokenizer.json",)


@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_any_tokenizer_file_is_a_tokenizer(tmp_path: Path, name: str) -> None:
    assert not has_tokenizer(tmp_path)
    (tmp_path / name).touch()
    assert has_tokenizer(tmp_path)


def test_remote_code_is_every_python_module_in_order(tmp_path: Path) -> None:
    for name in ("modeling_b.py", "configuration_a.py", "config.json", "notes.pyc"):
        (tmp_path / name).touch()
    (tmp_path / "package.py").mkdir()

    assert remote_code(tmp_path) == [tmp_path / "configuration_a.py", tmp_path / "modeling_b.py"]
