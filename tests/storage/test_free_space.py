"""How much room there is, and how it is claimed."""

import ctypes
import errno
import os
from pathlib import Path

import pytest

from internvl_bridge.storage.free_space import allocate, existing_ancestor, free_bytes

pytest_plugins = ["storage.filesystems"]

MIB = 1 << 20


class Library:
    """The C library, of which fallocate fails or is not there."""

    def __init__(self, code: int | None) -> None:
        if code is not None:
            self.fallocate = lambda *_: ctypes.set_errno(code) or -1


def claimed(path: Path, size: int) -> os.stat_result:
    with path.open("xb") as file:
        allocate(file.fileno(), size)
        return os.fstat(file.fileno())


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_claimed_room_is_there_and_reads_as_zeros(request, kind):
    directory = request.getfixturevalue(kind)
    status = claimed(directory / "file", MIB + 1)
    assert status.st_size == MIB + 1
    assert status.st_blocks * 512 >= MIB + 1
    assert (directory / "file").read_bytes() == bytes(MIB + 1)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_room_that_is_not_there_is_an_error_at_once(request, kind):
    directory = request.getfixturevalue(kind)
    with pytest.raises(OSError, match="No space left") as caught:
        claimed(directory / "file", 1 << 30)
    assert caught.value.errno == errno.ENOSPC


def test_no_room_is_claimed_for_nothing(tmp_path):
    assert claimed(tmp_path / "file", 0).st_size == 0


@pytest.mark.parametrize("size", [5 << 30, (1 << 31) - 1, 1 << 32], ids=str)
def test_large_sizes_reach_the_kernel_whole(tmp_path, monkeypatch, size):
    asked = []

    class Recording:
        def fallocate(self, file: int, mode: int, offset: ctypes.c_int64, length: ctypes.c_int64) -> int:
            asked.append((file, mode, offset.value, length.value))
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_more: Recording())
    claimed(tmp_path / "file", size)
    assert [call[1:] for call in asked] == [(0, 0, size)]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO], ids=errno.errorcode.get)
def test_a_failure_is_raised(tmp_path, monkeypatch, code):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_more: Library(code))
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        claimed(tmp_path / "file", 1)
    assert caught.value.errno == code


@pytest.mark.parametrize("code", [None, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EINTR])
def test_where_it_cannot_be_done_nothing_is(tmp_path, monkeypatch, code):
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_more: Library(code))
    assert claimed(tmp_path / "file", MIB).st_size == 0


def test_free_room_is_that_of_the_file_system_where_a_file_would_be(ext4):
    free, there = free_bytes(ext4), os.statvfs(ext4)
    assert 32 * MIB < free < 64 * MIB
    assert there.f_bavail < there.f_bfree  # some is kept for the administrator
    assert free == there.f_bavail * there.f_frsize
    assert free_bytes(ext4 / "not" / "yet" / "there") == free
    (ext4 / "file").write_bytes(bytes(8 * MIB))
    os.sync()
    assert free - 9 * MIB < free_bytes(ext4 / "file") <= free - 8 * MIB


def test_the_nearest_directory_that_exists(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert existing_ancestor(tmp_path) == tmp_path
    assert existing_ancestor(tmp_path / "file") == tmp_path / "file"
    assert existing_ancestor(tmp_path / "a" / "b" / "c") == tmp_path
    assert existing_ancestor(Path("/nowhere at all/x")) == Path("/")
    monkeypatch.chdir(tmp_path)
    assert existing_ancestor(Path("a/b")) == tmp_path
    assert existing_ancestor(Path("a/../file")) == tmp_path / "file"
