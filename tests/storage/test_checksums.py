"""Checksums are those of the bytes, however they come."""

import errno
import os
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import reading
from internvl_bridge.storage.checksums import ALGORITHM, PassingChecksums, checksum_of, hashed, new_checksum
from internvl_bridge.storage.reading import FileReader, file_checksum
from internvl_bridge.work.progress import nothing

EMPTY = "99aa06d3014798d86001c324468d497f"
"""What the specification of XXH3 gives for no bytes at all, in its canonical order."""


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checksums")


def test_the_algorithm_is_the_one_that_is_named():
    assert ALGORITHM in xxhash.algorithms_available
    assert checksum_of([]) == new_checksum().hexdigest() == EMPTY
    assert checksum_of([b"a", b"", b"bc"]) == xxhash.xxh3_128(b"abc").hexdigest()
    assert new_checksum().name.lower() == "xxh3_128"


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_windows_pass_unchanged_and_are_summed_in_order(windows):
    checksum = new_checksum()
    views = [memoryview(window) for window in windows]
    assert list(map(bytes, hashed(views, checksum))) == windows
    assert checksum.hexdigest() == checksum_of([b"".join(windows)])


@given(st.binary(max_size=300), st.integers(1, 100))
def test_a_file_is_summed_in_windows(scratch, data, window):
    (scratch / "file").write_bytes(data)
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as monkeypatch, FileReader() as readers:
        monkeypatch.setattr(reading, "WINDOW", window)
        assert file_checksum(scratch / "file", readers, steps.append) == xxhash.xxh3_128_hexdigest(data)
    assert sum(steps) == len(data)
    assert all(0 < step <= window for step in steps)


def test_every_flipped_bit_changes_the_checksum():
    data = bytes(range(64))
    sums = {checksum_of([data])}
    for place in range(8 * len(data)):
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        sums.add(checksum_of([bytes(changed)]))
    assert len(sums) == 8 * len(data) + 1


def test_a_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"data")

    def preadv(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with FileReader() as readers:
        with pytest.raises(FileNotFoundError) as missing:
            file_checksum(tmp_path / "nothing", readers, nothing)
        assert str(missing.value.filename) == str(tmp_path / "nothing")
        monkeypatch.setattr(os, "preadv", preadv)
        with pytest.raises(OSError, match="Input/output error") as caught:
            file_checksum(tmp_path / "file", readers, nothing)
        assert caught.value.filename == str(tmp_path / "file")


def test_a_file_that_becomes_shorter_meanwhile_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW", 2)
    (tmp_path / "file").write_bytes(b"data")
    with FileReader() as readers, pytest.raises(CheckpointError, match="ended before byte 4: it was changed"):
        file_checksum(tmp_path / "file", readers, lambda _: os.truncate(tmp_path / "file", 1))


DATA = bytes(number * 7 % 251 for number in range(1000))


@given(
    intervals=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(lambda pair: tuple(sorted(pair)))),
    others=st.lists(st.integers(0, 999).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, 1000)))),
    cuts=st.lists(st.integers(0, 1000)),
)
def test_intervals_have_the_checksums_of_their_bytes_however_they_pass(
    intervals: list[tuple[int, int]], others: list[tuple[int, int]], cuts: list[int]
) -> None:
    passing = PassingChecksums(intervals, others)
    for start, stop in pairwise(sorted({0, 1000, *cuts})):
        passing.update(memoryview(DATA)[start:stop])

    assert passing.result.whole == xxhash.xxh3_128_hexdigest(DATA)
    assert passing.result.parts == {place: xxhash.xxh3_128_hexdigest(DATA[slice(*place)]) for place in intervals}
    assert passing.result.crcs == {place: crc32(DATA[slice(*place)]) for place in others}


def test_an_interval_that_did_not_end_has_no_checksum() -> None:
    passing = PassingChecksums([(2, 5), (2, 4), (9, 9)])
    passing.update(memoryview(DATA)[:4])
    assert passing.result.parts.keys() == {(2, 4), (9, 9)}
