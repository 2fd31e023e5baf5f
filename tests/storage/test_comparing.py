"""Ranges of two files are the same bits, or the first byte that differs is known."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import reading
from internvl_bridge.storage.checkpoint import Piece
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.reading import FileReader

CUTS = st.lists(st.integers(0, 200), max_size=6)
SOME_BYTES = st.binary(max_size=200)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparing")


def stored(path: Path, data: bytes, cuts: list[int]) -> list[Piece]:
    """Lay ``data`` down in ``path``, cut into pieces that lie there last first and with gaps between."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[start:stop] for start, stop in pairwise(edges)]
    content = b""
    pieces = []
    for part in reversed(parts):
        content += b"gap"
        pieces.append(Piece(path, len(content), len(part)))
        content += part
    path.write_bytes(content)
    return pieces[::-1]


def difference(left: list[Piece], right: list[Piece], window: int) -> tuple[int | None, list[int]]:
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as monkeypatch, FileReader() as readers:
        monkeypatch.setattr(reading, "WINDOW", window)
        return first_difference(left, right, readers, steps.append), steps


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


@given(st.binary(min_size=1, max_size=200), st.data(), CUTS, st.integers(1, 220))
def test_of_several_differences_the_first_is_found(scratch, data, draw, cuts, window):
    places = draw.draw(st.sets(st.integers(0, len(data) - 1), min_size=1))
    other = bytes(255 - byte if place in places else byte for place, byte in enumerate(data))
    left, right = stored(scratch / "left", data, cuts), stored(scratch / "right", other, [])
    assert difference(left, right, window)[0] == min(places)


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
    assert difference([Piece(tmp_path / "file", 1, 0)], [], 10) == (None, [])


# Reading in windows


@given(SOME_BYTES, CUTS, st.integers(1, 220))
def test_windows_are_the_bytes_in_pieces_of_one_size(scratch, data, cuts, window):
    pieces = stored(scratch / "file", data, cuts)
    with pytest.MonkeyPatch.context() as monkeypatch, FileReader() as readers:
        monkeypatch.setattr(reading, "WINDOW", window)
        windows = [bytes(window) for window in readers.windows(pieces)]
    assert b"".join(windows) == data
    assert all(len(part) == window for part in windows[:-1])
    assert all(0 < len(part) <= window for part in windows)


def test_reads_that_are_cut_short_are_continued(tmp_path, monkeypatch):
    whole_read = os.preadv
    pieces = stored(tmp_path / "file", b"0123456789abcdef", [5])
    monkeypatch.setattr(os, "preadv", lambda handle, rooms, offset: whole_read(handle, [rooms[0][:3]], offset))
    monkeypatch.setattr(reading, "WINDOW", 10)
    with FileReader() as readers:
        assert [bytes(window) for window in readers.windows(pieces)] == [b"0123456789", b"abcdef"]


def test_no_read_asks_for_more_than_a_window(tmp_path, monkeypatch):
    whole_read, counts = os.preadv, []

    def preadv(handle: int, rooms: list[memoryview], offset: int) -> int:
        counts.append(sum(map(len, rooms)))
        return whole_read(handle, rooms, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(reading, "WINDOW", 10)
    with FileReader() as readers:
        windows = readers.windows(stored(tmp_path / "file", bytes(95), [3, 50]))
        assert b"".join(map(bytes, windows)) == bytes(95)
    assert max(counts) == 10


@pytest.mark.parametrize("left", [0, 3, 12])
def test_a_file_that_became_shorter_is_refused(tmp_path, left):
    [piece] = stored(tmp_path / "left", b"0123456789", [])
    [other] = stored(tmp_path / "right", b"0123456789", [])
    os.truncate(piece.path, left)
    with pytest.raises(CheckpointError, match="ended before byte 13: it was changed") as caught:
        difference([piece], [other], 4)
    assert str(tmp_path / "left") in str(caught.value)
    assert "Try again" in caught.value.remedy


def test_a_file_is_opened_once_and_closed_at_the_end(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with FileReader() as readers:
        handle = readers.fileno(tmp_path / "file")
        assert readers.fileno(tmp_path / "file") == handle
        assert os.pread(handle, 2, 0) == b"x"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_files_are_closed_when_something_fails(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    readers = FileReader()
    handle = readers.fileno(tmp_path / "file")
    with pytest.raises(KeyboardInterrupt), readers:
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with FileReader() as readers, pytest.raises(FileNotFoundError):
        readers.fileno(tmp_path / "nothing")
