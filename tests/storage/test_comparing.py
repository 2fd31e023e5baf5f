"""Ranges of two files are the same bits, or the first byte that differs is known; so are tensors."""

import errno
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import comparing, reading
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.output_shards import TargetTensor
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import StoredTensor
from internvl_bridge.verification.tensors import Comparison, Pair, compare, differences
from internvl_bridge.work.progress import nothing

CUTS = st.lists(st.integers(0, 200), max_size=6)
SOME_BYTES = st.binary(max_size=200)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparing")


class AtOnce:
    """An executor that does everything as early as it may: what is read ahead is read before anything is compared."""

    def __init__(self, _workers: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 (as a real one does)
            future.set_exception(error)
        return future


def stored(path: Path, data: bytes, cuts: list[int]) -> list[ByteRange]:
    """Lay ``data`` down in ``path``, cut into pieces that lie there last first and with gaps between."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[start:stop] for start, stop in pairwise(edges)]
    content = b""
    ranges = []
    for part in reversed(parts):
        content += b"gap"
        ranges.append(ByteRange(path, len(content), len(part)))
        content += part
    path.write_bytes(content)
    return ranges[::-1]


def difference(left: list[ByteRange], right: list[ByteRange], window: int) -> tuple[int | None, list[int]]:
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as monkeypatch, FileReader() as ours, FileReader() as theirs:
        monkeypatch.setattr(reading, "WINDOW", window)
        found = first_difference(ours.windows(left), theirs.windows(right, buffers=2), steps.append)
    return found, steps


def windows_of(data: bytes, size: int) -> Iterator[memoryview]:
    for start in range(0, len(data), size):
        yield memoryview(bytearray(data[start : start + size]))


# Comparing


@given(SOME_BYTES, CUTS, CUTS, st.integers(1, 220))
def test_equal_bytes_are_equal_however_they_are_cut(scratch, data, left_cuts, right_cuts, window):
    left, right = stored(scratch / "left", data, left_cuts), stored(scratch / "right", data, right_cuts)
    found, steps = difference(left, right, window)
    assert found is None
    assert sum(steps) == len(data)


@given(st.binary(min_size=1, max_size=200), st.integers(0), CUTS, CUTS, st.integers(1, 220))
def test_any_single_flipped_bit_is_found_where_it_is(scratch, data, bit, left_cuts, right_cuts, window):
    place = bit // 8 % len(data)
    flipped = bytearray(data)
    flipped[place] ^= 1 << bit % 8
    left = stored(scratch / "left", data, left_cuts)
    right = stored(scratch / "right", bytes(flipped), right_cuts)
    assert difference(left, right, window)[0] == place
    assert difference(right, left, window)[0] == place


def test_every_single_flipped_bit_is_found_where_it_is():
    data = bytes(range(100, 137))
    for place in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            found = first_difference(windows_of(data, 10), windows_of(bytes(flipped), 10), nothing)
            assert found == place


@given(st.binary(min_size=1, max_size=200), st.data(), CUTS, st.integers(1, 220))
def test_of_several_differences_the_first_is_found(scratch, data, draw, cuts, window):
    places = draw.draw(st.sets(st.integers(0, len(data) - 1), min_size=1))
    other = bytes(255 - byte if place in places else byte for place, byte in enumerate(data))
    left, right = stored(scratch / "left", data, cuts), stored(scratch / "right", other, [])
    assert difference(left, right, window)[0] == min(places)


@given(SOME_BYTES, st.binary(min_size=1, max_size=50), st.integers(1, 60))
def test_one_side_that_ends_early_differs_where_it_ends(data, more, window):
    for left, right in ((data, data + more), (data + more, data)):
        assert first_difference(windows_of(left, window), windows_of(right, window), nothing) == len(data)


@given(SOME_BYTES, SOME_BYTES, st.integers(1, 60))
def test_any_two_are_compared_as_their_bytes_are(left, right, window):
    found = first_difference(windows_of(left, window), windows_of(right, window), nothing)
    longest = max(len(left), len(right))
    places = (place for place in range(longest) if left[place : place + 1] != right[place : place + 1])
    assert found == next(places, None)


@pytest.mark.parametrize("place", [0, 9, 10, 11, 19, 20, 29])
def test_a_difference_at_the_edge_of_a_window_is_found(tmp_path, place):
    data = bytes(30)
    left = stored(tmp_path / "left", data, [])
    right = stored(tmp_path / "right", data[:place] + b"\x01" + data[place + 1 :], [7, 10, 13])
    found, steps = difference(left, right, 10)
    assert found == place
    assert steps == [10] * (place // 10)


def test_a_difference_behind_the_first_real_window_is_found(tmp_path):
    data = bytes(reading.WINDOW + 100)
    place = reading.WINDOW + 50
    left = stored(tmp_path / "left", data, [])
    right = stored(tmp_path / "right", data[:place] + b"\x80" + data[place + 1 :], [reading.WINDOW - 1])
    assert difference(left, right, reading.WINDOW) == (place, [reading.WINDOW])


def test_numbers_that_are_equal_may_differ_in_their_bits(tmp_path):
    zero, minus_zero = b"\x00\x00\x00\x00", b"\x00\x00\x00\x80"
    left, right = stored(tmp_path / "left", zero, []), stored(tmp_path / "right", minus_zero, [])
    assert difference(left, right, 100)[0] == 3


def test_nothing_equals_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    assert difference([], [], 10) == (None, [])
    assert difference([ByteRange(tmp_path / "file", 1, 0)], [], 10) == (None, [])
    assert difference([], [ByteRange(tmp_path / "file", 0, 1)], 10) == (0, [])


def test_what_is_read_ahead_does_not_spoil_what_is_being_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "ThreadPoolExecutor", AtOnce)
    data = bytes(range(95))
    left, right = stored(tmp_path / "left", data, [11]), stored(tmp_path / "right", data, [50, 77])
    assert difference(left, right, 10)[0] is None


# Errors and early ends


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("left", [0, 3, 12])
def test_a_file_that_became_shorter_is_refused(tmp_path, left, side):
    ranges = {name: stored(tmp_path / name, b"0123456789", []) for name in ("left", "right")}
    os.truncate(tmp_path / side, left)
    with pytest.raises(CheckpointError, match="ended before byte 13: it was changed") as caught:
        difference(ranges["left"], ranges["right"], 4)
    assert str(tmp_path / side) in str(caught.value)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("failing", [0, 3, 9])
def test_an_error_of_the_disk_is_raised_with_the_name_of_the_file(tmp_path, monkeypatch, side, failing):
    ranges = {name: stored(tmp_path / name, bytes(100), []) for name in ("left", "right")}
    bad, whole, calls = (tmp_path / side).stat().st_ino, os.preadv, iter(range(100))

    def preadv(file: int, rooms: list[memoryview], offset: int) -> int:
        if os.fstat(file).st_ino == bad and next(calls) == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return whole(file, rooms, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    before = threading.active_count()
    with pytest.raises(OSError, match="Input/output error") as caught:
        difference(ranges["left"], ranges["right"], 10)
    assert caught.value.filename == str(tmp_path / side)
    assert threading.active_count() == before


def endless(data: bytes, size: int, closed: list[str]) -> Iterator[memoryview]:
    try:
        yield from windows_of(data, size)
        while True:
            yield memoryview(bytearray(size))
    finally:
        closed.append("closed")


def test_an_early_end_stops_the_reading_ahead_and_closes_it():
    closed: list[str] = []
    before = threading.active_count()
    found = first_difference(endless(b"abc", 10, closed), endless(b"abd", 10, closed), nothing)
    assert found == 2
    assert closed == ["closed", "closed"]
    assert threading.active_count() == before


def test_an_interrupt_of_the_progress_stops_both_sides():
    def advance(_: int) -> None:
        raise KeyboardInterrupt

    closed: list[str] = []
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        first_difference(endless(b"a", 1, closed), endless(b"a", 1, closed), advance)
    assert threading.active_count() == before


# Tensors

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
        comparison = compare(expected_of(ours), theirs, workers, nothing)
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
    ranges = {key: in_pieces(tensor, tmp_path) for key, tensor in theirs.items()}
    assert [len(tensor.ranges) for tensor in ranges.values()] == [4, 0, 5, 0, 10, 2]
    whole: Comparison = compare(expected_of(ours), theirs, workers, nothing)
    assert compare(expected_of(ours), ranges, workers, nothing) == whole
    assert [(found.key, found.element) for found in whole.differences] == [("4", 10), ("5", 1)]
    swapped = compare(list(ranges.items()), ours, workers, nothing)
    assert [(found.key, found.element) for found in swapped.differences] == [("4", 10), ("5", 1)]
    assert swapped.equal == whole.equal == ("0", "1", "2", "3")


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_results_come_in_the_order_that_was_expected(tmp_path, workers):
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    changed = [flipped(content, 0) if content else content for content in CONTENTS]
    theirs = checkpoint_of(tmp_path, "theirs", changed, [2, 1, 0, 2, 1, 0])
    order = ["4", "0", "5", "1", "2", "3"]
    comparison = compare([(key, dict(expected_of(ours))[key]) for key in order], theirs, workers, nothing)
    assert [found.key for found in comparison.differences] == ["4", "0", "5", "2"]
    assert comparison.equal == ("1", "3")


@pytest.mark.parametrize("workers", [1, 3])
def test_what_is_missing_unexpected_or_of_another_kind_is_not_compared(tmp_path, workers):
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    theirs: dict[str, Any] = checkpoint_of(tmp_path, "theirs", CONTENTS, [0, 1, 0, 1, 0, 1])
    theirs["stray"] = theirs.pop("0")
    theirs["2"] = StoredTensor("I32", (6,), 0, theirs["2"].data)
    theirs["4"] = StoredTensor("F32", (3, 4), 0, theirs["4"].data)
    comparison = compare(expected_of(ours), theirs, workers, nothing)
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
    found = compare(expected_of(ours), theirs, 2, nothing)
    assert [(one.key, one.element, one.l2) for one in found.differences[:2]] == [("0", 1, 5.0), ("1", 0, 0.0)]
    assert math.isnan(found.differences[2].l2)
    assert math.isnan(found.l2)


def test_equal_tensors_are_read_once_and_those_behind_a_difference_twice(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW", 8)
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    total = sum(map(len, CONTENTS))
    steps: list[int] = []
    assert compare(expected_of(ours), ours, 1, steps.append).identical
    assert sum(steps) == total
    theirs = checkpoint_of(tmp_path, "theirs", [*CONTENTS[:5], flipped(CONTENTS[5], 0)], [0] * 6)
    pairs = [Pair(key, tensor, theirs[key]) for key, tensor in expected_of(ours)]
    steps.clear()
    assert [found.key for found in differences(pairs, steps.append)] == ["5"]
    assert sum(steps) == total - 8


def test_what_is_read_ahead_does_not_spoil_the_tensors_that_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(comparing, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(reading, "WINDOW", 8)
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    theirs = checkpoint_of(tmp_path, "theirs", CONTENTS, [1] * 6)
    assert compare(expected_of(ours), theirs, 1, nothing).identical


@pytest.mark.parametrize("workers", [1, 4])
def test_a_checkpoint_that_became_shorter_is_refused(tmp_path, workers):
    ours = checkpoint_of(tmp_path, "ours", CONTENTS, [0] * 6)
    theirs = checkpoint_of(tmp_path, "theirs", CONTENTS, [0, 1, 2, 0, 1, 2])
    os.truncate(tmp_path / "theirs-1", 5)
    with pytest.raises(CheckpointError, match="theirs-1 ended before byte"):
        compare(expected_of(ours), theirs, workers, nothing)


def test_nothing_compared_with_nothing_is_identical():
    comparison = compare([], {}, 2, nothing)
    assert comparison.identical
    assert comparison.l2 == 0
