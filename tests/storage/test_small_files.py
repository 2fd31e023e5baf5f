"""The small files beside the weights are written once, whole, and for good."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from internvl_bridge.storage.small_files import copy_file, write_bytes, write_json

JSON = {"z": [1, 0.5, None, True], "a": {"\u00e9": "\U0001f600\r\n"}, "empty": {}}


def test_bytes_are_written_as_they_are(tmp_path: Path):
    write_bytes(tmp_path / "file", b"\x00\r\n\xff")
    assert (tmp_path / "file").read_bytes() == b"\x00\r\n\xff"


def test_json_is_written_in_order_indented_and_with_a_newline_at_the_end(tmp_path: Path):
    write_json(tmp_path / "file", {"z": [1], "a": {"\u00e9": "\r\n"}})
    assert (
        (tmp_path / "file").read_bytes()
        == b"""{
  "z": [
    1
  ],
  "a": {
    "\xc3\xa9": "\\r\\n"
  }
}
"""
    )


def test_json_is_read_back_as_it_was(tmp_path: Path):
    write_json(tmp_path / "file", JSON)
    assert json.loads((tmp_path / "file").read_bytes()) == JSON


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")]])
def test_what_json_has_no_number_for_is_not_written(tmp_path: Path, value: object):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "file", value)


@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_001])
def test_a_file_is_copied_whatever_its_size(tmp_path: Path, size: int):
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    copy_file(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == data
    assert (tmp_path / "source").read_bytes() == data


def test_a_link_is_copied_as_the_file_that_it_leads_to(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"data")
    (tmp_path / "link").symlink_to("file")
    copy_file(tmp_path / "link", tmp_path / "target")
    assert not (tmp_path / "target").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"data"


def copy_own(path: Path, data: bytes) -> None:
    source = path.with_name("source")
    source.write_bytes(data)
    copy_file(source, path)


@pytest.mark.parametrize("write", [write_bytes, write_json, copy_own])
@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "directory"])
def test_a_small_file_is_not_written_over_another(tmp_path: Path, write: Callable, kind: str):
    path, other = tmp_path / "file", tmp_path / "other"
    if kind != "dangling link":
        other.write_bytes(b"precious")
    if kind == "file":
        path.write_bytes(b"precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("other")
    with pytest.raises(FileExistsError):
        write(path, [] if write is write_json else b"")
    assert path.is_dir() or kind == "dangling link" or path.read_bytes() == b"precious"
    assert other.exists() == (kind != "dangling link")


@pytest.mark.parametrize(("write", "value"), [(write_bytes, b"12345"), (write_json, JSON), (copy_own, b"12345")])
def test_a_small_file_reaches_the_disk_complete(tmp_path: Path, monkeypatch, write: Callable, value: object):
    synced = []

    def fsync(handle: int) -> None:
        status = os.fstat(handle)
        synced.append((status.st_ino, status.st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    write(tmp_path / "file", value)
    status = (tmp_path / "file").stat()
    assert status.st_size > 0
    assert synced == [(status.st_ino, status.st_size)]


@pytest.mark.parametrize(("write", "value"), [(write_bytes, b"12345"), (write_json, JSON), (copy_own, b"12345")])
def test_what_the_disk_refuses_is_an_error(tmp_path: Path, monkeypatch, write: Callable, value: object):
    def fsync(_handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "file", value)


def test_the_file_that_cannot_be_read_is_named(tmp_path: Path):
    place = tmp_path / "link"
    place.symlink_to("/proc/self/mem")  # reading its first page fails
    with pytest.raises(OSError, match="Input/output error") as caught:
        copy_file(place, tmp_path / "target")
    assert caught.value.filename == str(place)
