"""Tensors are the same bits, or every one that differs is found, located and measured."""

import math
import os
import sys
from math import isnan
from pathlib import Path
from typing import Any

import pytest
from executors import AtOnce
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import comparing, reading
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.output_shards import TargetTensor
from internvl_bridge.storage.source_shards import StoredTensor
from internvl_bridge.verification.tensors import Comparison, Pair, compare, differences
from internvl_bridge.work.progress import silent

UNSEEN = silent("", 0, 0)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparing")


CONTENTS = [bytes(range(16)), b"", bytes(24), b"", bytes(range(50, 98)), bytes(8)]


def checkpoint_of(directory: Path, name: str, contents: list[bytes], files: list[int]) -> dict[str, StoredTensor]:
    """``contents`` as tensors "0", "1", ..., each in the file that ``files`` says."""
    tensors, data = {}, dict.fromkeys(files, b"gap")
    for number, (content, file) in enumerate(zip(contents, files, strict=True)):
        byte_range = ByteRange(directory / f"{name}-{file}", len(data[file]), len(content))
        tensors[str(number)] = StoredTensor("F32", (len(content) // 4,), file, byte_range)
        data[file] += content
    for file, content in data.items():
        (directory / f"{name}-{file}").write_bytes(content)
    return tensors


def in_pieces(tensor: StoredTensor, directory: Path) -> TargetTensor:
    """The same tensor, cut into pieces of 5 bytes that lie in two other files in turn."""
    data = tensor.data
    content = data.path.read_bytes()[data.offset :][: data.length]
    paths = [directory / f"{data.path.name}-{data.offset}-{side}" for side in "xy"]
    for side, path in enumerate(paths):
        path.write_bytes(b"".join(content[start : start + 5] for start in range(5 * side, len(content), 10)))
    starts = range(0, len(content), 5)
    return TargetTensor(
        tensor.dtype,
        tensor.shape,
        tuple(ByteRange(paths[start // 5 % 2], start // 10 * 5, min(5, len(content) - start)) for start in starts),
    )


def expected_of(tensors: dict[str, StoredTensor]) -> list[tuple[str, TargetTensor]]:
    return [(key, TargetTensor(t.dtype, t.shape, t.ranges)) for key, t in tensors.items()]


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


@given(
    st.lists(st.sampled_from([0, 4, 8, 40, 44]), max_size=8),
    st.lists(st.integers(0, 2), min_size=8, max_size=8),
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 43)), max_size=6),
    st.integers(1, 4),
    st.sampled_from([4, 8, 24, 400]),
)
def test_whatever_differs_is_found_and_located(scratch, lengths, files, flips, workers, window):
    """In any files, with any number of workers: the first element that differs, in the order that was expected."""
    contents = [bytes((7 * number + i) % 64 for i in range(length)) for number, length in enumerate(lengths)]
    changed, firsts = list(contents), {}
    for number, place in sorted(flips):
        if number < len(contents) and place < len(contents[number]):
            changed[number] = flipped(changed[number], place)
            firsts.setdefault(str(number), place // 4)
    ours = checkpoint_of(scratch, "ours", contents, files[::-1][: len(contents)])
    theirs = checkpoint_of(scratch, "theirs", changed, files[: len(contents)])
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(reading, "WINDOW", window)
        comparison = compare(expected_of(ours), theirs, workers, UNSEEN)
    assert [(found.key, found.element) for found in comparison.differences] == list(firsts.items())
    assert comparison.equal == tuple(key for key in ours if key not in firsts)
    assert comparison.complete
    assert comparison.identical is not bool(firsts)
    assert (comparison.l2 > 0) is bool(firsts)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("files", [[0] * 6, [0, 1, 2, 0, 1, 2], [2, 2, 1, 1, 0, 0]], ids=str)
def test_tensors_in_pieces_over_several_files_are_compared_as_whole_ones(tmp_path, files, workers):
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    theirs = checkpoint_of(tmp_path, "theirs", [*CONTENTS[:4], flipped(CONTENTS[4], 41), bytes(7) + b"\x01"], files)
    cut = {key: in_pieces(tensor, tmp_path) for key, tensor in theirs.items()}
    assert [len(tensor.ranges) for tensor in cut.values()] == [4, 0, 5, 0, 10, 2]
    whole: Comparison = compare(expected_of(ours), theirs, workers, UNSEEN)
    assert compare(expected_of(ours), cut, workers, UNSEEN) == whole
    assert [(found.key, found.element) for found in whole.differences] == [("4", 10), ("5", 1)]
    swapped = compare(list(cut.items()), ours, workers, UNSEEN)
    assert [(found.key, found.element) for found in swapped.differences] == [("4", 10), ("5", 1)]
    assert swapped.equal == whole.equal == ("0", "1", "2", "3")


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_results_come_in_the_order_that_was_expected(tmp_path, workers):
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    changed = [flipped(content, 0) if content else content for content in CONTENTS]
    theirs = checkpoint_of(tmp_path, "theirs", changed, [2, 1, 0, 2, 1, 0])
    order = ["4", "0", "5", "1", "2", "3"]
    comparison = compare([(key, dict(expected_of(ours))[key]) for key in order], theirs, workers, UNSEEN)
    assert [found.key for found in comparison.differences] == ["4", "0", "5", "2"]
    assert comparison.equal == ("1", "3")


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_missing_unexpected_or_of_another_kind_is_not_compared(tmp_path, workers):
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    theirs: dict[str, Any] = checkpoint_of(tmp_path, "theirs", CONTENTS, [0, 1, 0, 1, 0, 1])
    theirs["stray"] = theirs.pop("0")
    theirs["2"] = StoredTensor("I32", (6,), 0, theirs["2"].data)
    theirs["4"] = StoredTensor("F32", (3, 4), 0, theirs["4"].data)
    comparison = compare(expected_of(ours), theirs, workers, UNSEEN)
    assert comparison.missing == ("0",)
    assert comparison.unexpected == ("stray",)
    assert comparison.mismatched == {
        "2": "F32 [6] was expected, I32 [6] found",
        "4": "F32 [12] was expected, F32 [3, 4] found",
    }
    assert comparison.equal == ("1", "3", "5")
    assert comparison.differences == ()
    assert not comparison.complete
    assert not comparison.identical


def test_the_distance_is_that_of_the_numbers(tmp_path):
    import struct

    ours = checkpoint_of(tmp_path, "ours", [struct.pack("<3f", 1, 2, 3), struct.pack("<f", 0.0), bytes(4)], [0] * 3)
    theirs = checkpoint_of(
        tmp_path, "theirs", [struct.pack("<3f", 1, 5, 7), struct.pack("<f", -0.0), struct.pack("<f", math.nan)], [0] * 3
    )
    found = compare(expected_of(ours), theirs, 2, UNSEEN)
    assert [(one.key, one.element, one.l2) for one in found.differences[:2]] == [("0", 1, 5.0), ("1", 0, 0.0)]
    assert math.isnan(found.differences[2].l2)
    assert math.isnan(found.l2)


def test_equal_tensors_are_read_once_and_those_behind_a_difference_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW", 8)
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    total = sum(map(len, CONTENTS))
    steps: list[int] = []
    assert compare(expected_of(ours), ours, 1, lambda done, _finished: steps.append(done)).identical
    assert sum(steps) == total
    theirs = checkpoint_of(tmp_path, "theirs", [*CONTENTS[:5], flipped(CONTENTS[5], 0)], [0] * 6)
    pairs = [Pair(key, tensor, theirs[key]) for key, tensor in expected_of(ours)]
    steps.clear()
    assert [found.key for found in differences(pairs, steps.append)] == ["5"]
    assert sum(steps) == total


def test_what_is_read_ahead_does_not_spoil_the_tensors_that_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(reading, "WINDOW", 8)
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    theirs = checkpoint_of(tmp_path, "theirs", CONTENTS, [1] * 6)
    assert compare(expected_of(ours), theirs, 1, UNSEEN).identical


@pytest.mark.parametrize("workers", [1, 4])
def test_a_checkpoint_that_became_shorter_is_refused(tmp_path, workers):
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    theirs = checkpoint_of(tmp_path, "theirs", CONTENTS, [0, 1, 2, 0, 1, 2])
    os.truncate(tmp_path / "theirs-1", 5)
    with pytest.raises(CheckpointError, match="theirs-1 ended before byte"):
        compare(expected_of(ours), theirs, workers, UNSEEN)


def test_nothing_compared_with_nothing_is_identical():
    comparison = compare([], {}, 2, UNSEEN)
    assert comparison.identical
    assert comparison.l2 == 0


def test_without_torch_a_difference_is_found_and_not_measured(tmp_path, monkeypatch):
    ours, theirs = (checkpoint_of(tmp_path, name, [bytes(16)], [0]) for name in ("ours", "theirs"))
    path = next(iter(theirs.values())).ranges[0].path
    path.write_bytes(flipped(path.read_bytes(), path.stat().st_size - 1))
    monkeypatch.setitem(sys.modules, "torch", None)
    for module in ("verification.distance", "checkpoint.torch_dtypes"):
        monkeypatch.delitem(sys.modules, f"internvl_bridge.{module}", raising=False)
    [found] = compare(expected_of(ours), theirs, 1, UNSEEN).differences
    assert isnan(found.l2)
