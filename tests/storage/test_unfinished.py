"""Files that are not complete, although they have their whole size."""

import os
from pathlib import Path

import pytest

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.source_shards import StoredTensor
from internvl_bridge.storage.unfinished import check_downloaded, holes

BLOCK = 4096


@pytest.mark.parametrize("suffix", [".aria2", ".incomplete", ".part"])
def test_a_download_that_is_not_finished_is_refused(suffix: str, tmp_path: Path):
    path, other = tmp_path / "model.safetensors", tmp_path / "other.safetensors"
    check_downloaded([path, other])
    (tmp_path / f"model.safetensors{suffix}").touch()
    check_downloaded([other])
    with pytest.raises(
        CheckpointError, match=f"{suffix} is there, so that the download of {path.name} is not finished"
    ):
        check_downloaded([other, path])


def stored(path: Path, *places: tuple[int, int]) -> dict[str, StoredTensor]:
    return {f"{offset}": StoredTensor("U8", (length,), 0, ByteRange(path, offset, length)) for offset, length in places}


@pytest.fixture
def sparse(tmp_path: Path) -> Path:
    """One block of data, three of nothing, one of data, and three of nothing."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(b"1" * BLOCK)
        file.seek(4 * BLOCK)
        file.write(b"1" * BLOCK)
        file.truncate(8 * BLOCK)
    if os.stat(path).st_blocks * 512 >= 8 * BLOCK:  # noqa: PTH116
        pytest.skip("this file system has no holes")
    return path


def test_tensors_that_are_nothing_but_holes_are_named(sparse: Path):
    places = [(0, BLOCK), (10, 2 * BLOCK), (BLOCK, 2 * BLOCK), (3 * BLOCK, 2 * BLOCK), (6 * BLOCK, 2 * BLOCK)]
    assert holes(stored(sparse, *places)) == [str(BLOCK), str(6 * BLOCK)]
    assert holes(stored(sparse, *reversed(places))) == [str(6 * BLOCK), str(BLOCK)]
    assert holes(stored(sparse, (BLOCK, BLOCK - 1))) == []  # a few numbers may well be zero


def test_zeros_that_were_written_are_no_hole(tmp_path: Path):
    (tmp_path / "zeros").write_bytes(bytes(4 * BLOCK))
    assert holes(stored(tmp_path / "zeros", (0, 4 * BLOCK))) == []


def test_where_the_file_system_does_not_tell_there_are_none(sparse: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(os, "SEEK_HOLE")
    assert holes(stored(sparse, (BLOCK, 2 * BLOCK))) == []
