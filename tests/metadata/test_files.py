"""Which files beside the weights count, and which of them a sidecar can hold."""

import hashlib
from pathlib import Path

import pytest

from internvl_bridge.errors import CheckpointError, CompanionFileError, ConfigError
from internvl_bridge.metadata.files import (
    digest,
    has_tokenizer,
    is_text_name,
    present,
    remote_code,
    small_texts,
    text_digest,
)
from internvl_bridge.metadata.json_files import read_json_file
from internvl_bridge.stand_ins import POINTER_START

KIB = 1 << 10


def test_files_are_found_in_the_order_they_are_asked_for(tmp_path: Path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).touch()
    assert present(tmp_path, ["b.json", "c.json", "a.json"]) == [tmp_path / "b.json", tmp_path / "a.json"]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "chat_template.jinja", "merges.txt"])
def test_any_file_of_a_tokenizer_makes_one(name: str, tmp_path: Path):
    assert not has_tokenizer(tmp_path)
    (tmp_path / name).touch()
    assert has_tokenizer(tmp_path)


def test_a_link_to_nothing_is_not_overlooked(tmp_path: Path):
    (tmp_path / "tokenizer.json").symlink_to("nowhere")
    with pytest.raises(CompanionFileError, match=r"tokenizer\.json is a link to nowhere"):
        has_tokenizer(tmp_path)
    with pytest.raises(CompanionFileError, match=r"tokenizer\.json is a link to nowhere"):
        digest(tmp_path / "tokenizer.json")


def test_remote_code_is_every_module_and_nothing_else(tmp_path: Path):
    for name in ("b.py", "a.py", "a.pyc", "py"):
        (tmp_path / name).touch()
    (tmp_path / "directory.py").mkdir()
    assert [path.name for path in remote_code(tmp_path)] == ["a.py", "b.py"]


@pytest.mark.parametrize(
    "name", ["README.md", "config.json", "a.py", "a b.txt", "ü.yaml", "x.yml", "t.jinja", "a..json", "a\n.json", "~.md"]
)
def test_names_of_texts(name: str):
    assert is_text_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".json",
            "..json",
            ".hidden.txt",
            "../a.json",
            "/a.json",
            "a/b.json",
            "a\\b.json",
            "..\\a.json",
            "a\0.json",
        ),
        *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin.index.json", "a.JSON.exe", "json"),
        *("a.sh", "a.so", "LICENSE", "a.json/", "a.json\n", "a" * 200 + ".json"),
    ],
)
def test_names_of_anything_else(name: str):
    assert not is_text_name(name)


@pytest.mark.parametrize("name", ["🐱" * 90 + ".json", "\udcff.json"])
def test_names_that_no_file_can_have_or_no_sidecar_can_hold_are_no_names_of_texts(name: str):
    """File systems count bytes, 255 at most; a lone surrogate is no Unicode."""
    assert not is_text_name(name)


def test_texts_are_kept_to_the_letter(tmp_path: Path):
    texts = {"crlf.txt": "a\r\nb\r", "ü.md": "书\0\ufeff", "empty.json": "", "broken.json": "{", "list.json": "[1]\n"}
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode())
    assert small_texts(tmp_path, without=()) == texts
    assert list(small_texts(tmp_path, without=())) == sorted(texts)
    assert small_texts(tmp_path, without=["ü.md", "crlf.txt"]).keys() == texts.keys() - {"ü.md", "crlf.txt"}


def test_what_is_no_small_text_is_not_kept(tmp_path: Path):
    (tmp_path / "latin.txt").write_bytes(b"\xe9")
    (tmp_path / "image.png").write_bytes(b"x")
    (tmp_path / "large.json").write_bytes(b"x" * (512 * KIB + 1))
    (tmp_path / "directory.json").mkdir()
    (tmp_path / "dangling.json").symlink_to("nowhere")
    (tmp_path / "just.json").write_bytes(b"x" * (512 * KIB))
    assert small_texts(tmp_path, without=()).keys() == {"just.json"}


def test_links_to_texts_are_kept_as_texts(tmp_path: Path):
    (tmp_path / "blob").write_text("hello")
    (tmp_path / "README.md").symlink_to("blob")
    assert small_texts(tmp_path, without=()) == {"README.md": "hello"}


def test_where_all_are_too_much_the_largest_are_left_out(tmp_path: Path):
    for number in range(9):
        (tmp_path / f"{number}.txt").write_bytes(b"x" * (500 * KIB - number))
    (tmp_path / "config.json").write_text("{}")
    assert small_texts(tmp_path, without=()).keys() == {"config.json", *(f"{number}.txt" for number in range(1, 9))}


def test_a_text_and_the_file_that_holds_it_have_one_digest(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes("书\r\n".encode())
    assert digest(tmp_path / "a.txt") == text_digest("书\r\n") == hashlib.sha256("书\r\n".encode()).hexdigest()
    assert text_digest("书\n") != text_digest("书\r\n")
    assert digest(tmp_path / "b.txt") is None


@pytest.mark.parametrize(("length", "is_one"), [(200, True), (201, False)])
def test_a_name_may_have_200_bytes(length: int, *, is_one: bool):
    assert is_text_name("x" * (length - 4) + ".txt") is is_one
    assert is_text_name("\u00fc" * ((length - 4) // 2) + "x" * (length % 2) + ".txt") is is_one


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "vocab.json", "LICENSE", "README.md", "modeling.py"])
def test_a_git_lfs_pointer_is_not_taken_for_a_file(name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(POINTER_START + b".github.com/spec/v1\noid sha256:00\nsize 5\n")
    read = {"modeling.py": lambda: remote_code(tmp_path), "README.md": lambda: small_texts(tmp_path, without=())}
    with pytest.raises(CheckpointError, match=rf"{name} is a Git LFS pointer, not the file itself. Fetch all files"):
        read.get(name, lambda: present(tmp_path, [name]))()


def test_a_config_that_is_a_git_lfs_pointer_is_named_as_one(tmp_path: Path):
    (tmp_path / "config.json").write_bytes(POINTER_START)
    with pytest.raises(ConfigError, match="is a Git LFS pointer"):
        read_json_file(tmp_path / "config.json")
