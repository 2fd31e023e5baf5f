"""Ranges of many files arrive in windows of one size, whatever the disk makes of the requests."""

import errno
import mmap
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from storage.filesystems import open_files

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage import reading
from internvl_bridge.storage.block_alignment import Part
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.local_files import forget, uncached
from internvl_bridge.storage.reading import FileReader

pytest_plugins = ["storage.filesystems"]

BLOCK = 4096
CUTS = st.lists(st.integers(0, 200), max_size=6)
SOME_BYTES = st.binary(max_size=200)
DATA = bytes(range(256)) * (1 << 14)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reading")


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


# Windows


@given(SOME_BYTES, CUTS, st.integers(1, 220), st.integers(1, 4), st.booleans())
def test_windows_are_the_bytes_in_pieces_of_one_size(scratch, data, cuts, window, buffers, forgets):
    parts: list[Part] = [data[:50], *stored(scratch / "file", data, cuts), data]
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        FileReader(forgets={scratch / "file"} if forgets else ()) as readers,
    ):
        monkeypatch.setattr(reading, "WINDOW", window)
        windows = [bytes(window) for window in readers.windows(parts, buffers)]
    assert b"".join(windows) == data[:50] + data + data
    assert all(len(part) == window for part in windows[:-1])
    assert all(0 < len(part) <= window for part in windows)


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_a_window_is_valid_until_so_many_more_were_asked_for(tmp_path, monkeypatch, buffers):
    monkeypatch.setattr(reading, "WINDOW", 10)
    data = bytes(range(95))
    with FileReader() as readers:
        held: list[memoryview] = []
        for window in readers.windows(stored(tmp_path / "file", data, [3, 50]), buffers):
            held.append(window)
            newest = len(held) - 1
            for number in range(max(0, newest - buffers + 1), newest + 1):
                assert bytes(held[number]) == data[10 * number : 10 * number + 10]


def test_every_window_lies_at_the_start_of_a_page(tmp_path):
    import ctypes

    parts = stored(tmp_path / "file", bytes(2 * reading.WINDOW + 5), [7])
    with FileReader() as readers:
        for window in readers.windows(parts, 3):
            assert ctypes.addressof(ctypes.c_char.from_buffer(window)) % mmap.PAGESIZE == 0
            assert not window.readonly


def test_nothing_makes_no_window(tmp_path):
    with FileReader() as readers:
        assert list(readers.windows([])) == []
        assert list(readers.windows([b"", ByteRange(tmp_path / "never opened", 5, 0)])) == []


def test_memory_is_used_again_for_the_next_ranges(tmp_path, monkeypatch):
    made = []
    real = mmap.mmap

    def counted(number: int, length: int) -> mmap.mmap:
        made.append(length)
        return real(number, length)

    monkeypatch.setattr(mmap, "mmap", counted)
    monkeypatch.setattr(reading, "WINDOW", 10)
    parts = stored(tmp_path / "file", bytes(95), [3, 50])
    with FileReader() as readers:
        for _ in range(5):
            assert b"".join(map(bytes, readers.windows(parts, 3))) == bytes(95)
            assert b"".join(map(bytes, readers.windows(parts, 2))) == bytes(95)
    assert made == [10, 10, 10]


def test_two_sequences_of_one_reader_do_not_share_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW", 10)
    ours, theirs = stored(tmp_path / "ours", b"o" * 35, []), stored(tmp_path / "theirs", b"t" * 35, [])
    with FileReader() as readers:
        list(readers.windows(ours, 2))
        pairs = [(bytes(x), bytes(y)) for x, y in zip(readers.windows(ours), readers.windows(theirs), strict=True)]
    assert pairs == [(b"o" * 10, b"t" * 10)] * 3 + [(b"o" * 5, b"t" * 5)]


# The requests


@pytest.mark.parametrize("at_most", [1, 3, 9])
def test_reads_that_are_cut_short_are_continued(tmp_path, monkeypatch, at_most):
    whole_read = os.preadv
    ranges = stored(tmp_path / "file", b"0123456789abcdef", [5])
    monkeypatch.setattr(os, "preadv", lambda handle, rooms, offset: whole_read(handle, [rooms[0][:at_most]], offset))
    monkeypatch.setattr(reading, "WINDOW", 10)
    with FileReader() as readers:
        assert [bytes(window) for window in readers.windows(ranges)] == [b"0123456789", b"abcdef"]


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
    [byte_range] = stored(tmp_path / "file", b"0123456789", [])
    os.truncate(byte_range.path, left)
    with (
        FileReader(forgets={tmp_path / "file"}) as readers,
        pytest.raises(CheckpointError, match="ended before byte 13: it was changed") as caught,
    ):
        list(readers.windows([byte_range]))
    assert str(tmp_path / "file") in str(caught.value)
    assert "Try again" in caught.value.remedy


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.ESTALE], ids=errno.errorcode.get)
@pytest.mark.parametrize("failing", [0, 5, 9])
def test_an_error_of_the_disk_names_the_file(tmp_path, monkeypatch, code, failing):
    calls, whole = iter(range(100)), os.preadv

    def preadv(*args: Any) -> int:
        if next(calls) == failing:
            raise OSError(code, os.strerror(code))
        return whole(*args)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(reading, "WINDOW", 10)
    read = []
    with FileReader() as readers, pytest.raises(OSError, match=os.strerror(code)) as caught:
        read.extend(map(bytes, readers.windows(stored(tmp_path / "file", bytes(100), []))))
    assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "file"))


# What stays in the page cache


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def on_disk(request: pytest.FixtureRequest) -> Path:
    """A file of which the page cache holds nothing, on a file system that tells."""
    path = request.getfixturevalue(request.param) / "file"
    path.write_bytes(DATA)
    forgotten(path)
    if not uncached([path]):
        pytest.skip("the kernel does not tell what it holds")
    forgotten(path)  # the kernel reads ahead of what it is asked for
    return path


def forgotten(path: Path) -> None:
    """Write ``path`` to the disk and drop it from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        forget(file.fileno())


def all_of(readers: FileReader, path: Path) -> bytes:
    return b"".join(map(bytes, readers.windows([ByteRange(path, 0, path.stat().st_size)])))


def test_what_is_read_stays_in_memory(on_disk):
    with FileReader() as readers:
        assert all_of(readers, on_disk) == DATA
    assert uncached([on_disk]) == frozenset()


def test_what_is_read_of_a_file_to_forget_does_not_stay_in_memory(on_disk, monkeypatch):
    monkeypatch.setattr(reading, "WINDOW", 1 << 19)
    kept = on_disk.with_name("kept")
    kept.write_bytes(DATA)
    with FileReader(forgets={on_disk}) as readers:
        assert all_of(readers, on_disk) == all_of(readers, kept) == DATA
    assert uncached([on_disk, kept]) == {on_disk}


def test_a_file_that_was_just_written_is_in_memory(on_disk):
    on_disk.write_bytes(DATA)
    assert uncached([on_disk]) == frozenset()
    forgotten(on_disk)
    assert uncached([on_disk]) == {on_disk}


@pytest.mark.parametrize(("held", "counts"), [(0, True), (7, True), (8, False), (16, False)])
def test_a_file_of_which_memory_holds_half_is_not_uncached(tmp_path, monkeypatch, held, counts):
    """Of sixteen places all over the file, none of which is waited for."""
    asked = []

    def preadv(_file: int, rooms: list[bytearray], offset: int, flags: int) -> int:
        asked.append((offset, len(rooms[0]), flags))
        if len(asked) > held:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return 1

    (tmp_path / "file").write_bytes(DATA)
    monkeypatch.setattr(os, "preadv", preadv)
    assert (uncached([tmp_path / "file"]) == {tmp_path / "file"}) is counts
    assert len(asked) == len({offset // (len(DATA) // 16) for offset, _, _ in asked}) == 16
    assert {(length, flags) for _, length, flags in asked} == {(1, os.RWF_NOWAIT)}


def test_only_the_ranges_that_were_read_of_files_to_forget_are_forgotten(tmp_path, monkeypatch):
    advised = []
    monkeypatch.setattr(os, "posix_fadvise", lambda file, *rest: advised.append((os.fstat(file).st_ino, *rest)))
    monkeypatch.setattr(reading, "WINDOW", 10)
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first, second):
        path.write_bytes(bytes(50))
    with FileReader(forgets={first}) as readers:
        list(readers.windows([ByteRange(second, 0, 7), ByteRange(first, 20, 9), ByteRange(second, 0, 4)]))
    inode = first.stat().st_ino
    assert advised == [(inode, 20, 3, os.POSIX_FADV_DONTNEED), (inode, 23, 6, os.POSIX_FADV_DONTNEED)]


def test_advice_that_the_kernel_does_not_take_or_does_not_know_is_not_missed(tmp_path, monkeypatch):
    def refusing(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    ranges = stored(tmp_path / "file", b"0123456789", [4])
    with FileReader(forgets={tmp_path / "file"}) as readers:
        monkeypatch.setattr(os, "posix_fadvise", refusing)
        assert b"".join(map(bytes, readers.windows(ranges))) == b"0123456789"
        monkeypatch.delattr(os, "posix_fadvise")
        assert b"".join(map(bytes, readers.windows(ranges))) == b"0123456789"


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL, errno.EIO], ids=errno.errorcode.get)
def test_where_the_system_does_not_tell_nothing_counts_as_uncached(tmp_path, monkeypatch, code):
    def preadv(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    (tmp_path / "file").write_bytes(bytes(100))
    monkeypatch.setattr(os, "preadv", preadv)
    assert uncached([tmp_path / "file"]) == frozenset()


def test_on_a_platform_that_cannot_tell_nothing_counts_as_uncached(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(bytes(100))
    monkeypatch.delattr(os, "RWF_NOWAIT")
    assert uncached([tmp_path / "file"]) == frozenset()


@pytest.mark.parametrize("kind", ["tmp_path", "tmpfs", "ext4", "xfs", "btrfs"])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 3 * BLOCK + 17, 8 * BLOCK])
def test_the_bytes_of_a_file_to_forget_are_the_same_on_any_file_system(request, monkeypatch, kind, size):
    directory = request.getfixturevalue(kind)
    monkeypatch.setattr(reading, "WINDOW", 2 * BLOCK)
    data = DATA[:size]
    (directory / "file").write_bytes(data)
    forgotten(directory / "file")
    uncached([directory / "file"])
    with FileReader(forgets={directory / "file"}) as readers:
        odd = [ByteRange(directory / "file", min(1, size), max(0, size - 1))]
        assert all_of(readers, directory / "file") == data
        assert b"".join(map(bytes, readers.windows(odd, 2))) == data[1:]


# Open files


def test_a_file_is_opened_once_and_closed_at_the_end(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with FileReader() as readers:
        handle = readers.source(tmp_path / "file")
        assert readers.source(tmp_path / "file") == handle
        assert handle.read_into(memoryview(bytearray(2)), 0) == 1
    with pytest.raises(ValueError, match="closed"):
        handle.read_into(memoryview(bytearray(2)), 0)


def test_files_are_closed_when_something_fails(tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    readers = FileReader()
    handle = readers.source(tmp_path / "file")
    with pytest.raises(KeyboardInterrupt), readers:
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="closed"):
        handle.read_into(memoryview(bytearray(2)), 0)


def test_of_many_files_the_last_few_stay_open(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_MOST_OPEN", 3)
    paths = [tmp_path / str(number) for number in range(6)]
    for path in paths:
        path.write_bytes(path.name.encode())
    with FileReader() as readers:
        before = open_files()
        content = b"".join(bytes(window) for window in readers.windows(ByteRange(path, 0, 1) for path in paths * 3))
        assert content == b"012345" * 3
        assert open_files() == before + 3
        kept = readers.source(paths[3])
        readers.source(paths[0])
        readers.source(paths[1])
        assert readers.source(paths[3]) == kept  # asked for last, closed last
        readers.source(paths[2])
        assert readers.source(paths[3]) == kept
    assert open_files() == before


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path):
    with FileReader() as readers, pytest.raises(FileNotFoundError):
        readers.source(tmp_path / "nothing")
