"""Ranges of two files are the same bits, or the first byte that differs is known; so are tensors."""

import errno
import os
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from executors import AtOnce
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import comparing, reading
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.work.progress import nothing

CUTS = st.lists(st.integers(0, 200), max_size=6)
SOME_BYTES = st.binary(max_size=200)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparing")


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


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
