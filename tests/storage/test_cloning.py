"""Blocks are shared where the file system can, and where it cannot, that is said and nothing is changed."""

import errno
import fcntl
import os
import struct
from pathlib import Path

import pytest
from storage.filesystems import shared_blocks

from internvl_bridge.storage import cloning
from internvl_bridge.storage.cloning import can_clone, clone_range

pytest_plugins = ["storage.filesystems"]

BLOCK = 4096
DATA = b"".join(bytes([number]) * BLOCK for number in range(1, 11)) + b"end"
CANNOT = ["EOPNOTSUPP", "ENOTTY", "ENOSYS", "EXDEV", "EINVAL", "EPERM", "EBADF", "ETXTBSY"]


@pytest.fixture(params=["xfs", "btrfs"])
def sharing(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["ext4", "tmpfs"])
def separate(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


def cloned(directory: Path, start: int, length: int, offset: int) -> bool:
    """Whether a range of "source" could be shared with "target", which starts as two blocks of "x"."""
    (directory / "source").write_bytes(DATA)
    (directory / "target").write_bytes(b"x" * 2 * BLOCK)
    with (directory / "source").open("rb") as source, (directory / "target").open("r+b") as target:
        return clone_range(source.fileno(), start, length, target.fileno(), offset)


def raising(code: int) -> object:
    def ioctl(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return ioctl


def test_a_range_is_shared_where_it_was_asked_for(sharing):
    assert cloned(sharing, 3 * BLOCK, 4 * BLOCK, BLOCK)
    assert (sharing / "target").read_bytes() == b"x" * BLOCK + DATA[3 * BLOCK : 7 * BLOCK]
    assert shared_blocks(sharing / "target", sharing / "source") == {n * BLOCK for n in range(1, 5)}
    assert shared_blocks(sharing / "source", sharing / "target") == {n * BLOCK for n in range(3, 7)}


def test_behind_the_end_of_a_file_a_hole_is_left(sharing):
    assert cloned(sharing, 0, BLOCK, 4 * BLOCK)
    assert (sharing / "target").read_bytes() == b"x" * 2 * BLOCK + bytes(2 * BLOCK) + DATA[:BLOCK]


@pytest.mark.parametrize(
    ("start", "length", "offset"),
    [
        (1, BLOCK, 0),
        (0, BLOCK - 1, 0),
        (0, BLOCK, 1),
        (512, BLOCK, 512),
        (0, 11 * BLOCK, 0),  # there are ten, and a little
        (11 * BLOCK, BLOCK, 0),
    ],
)
def test_what_is_not_whole_blocks_of_the_source_is_refused_and_nothing_is_changed(sharing, start, length, offset):
    assert not cloned(sharing, start, length, offset)
    assert (sharing / "target").read_bytes() == b"x" * 2 * BLOCK


def test_where_nothing_can_be_shared_that_is_said_and_nothing_is_changed(separate):
    assert not cloned(separate, 0, 4 * BLOCK, 0)
    assert (separate / "target").read_bytes() == b"x" * 2 * BLOCK


def test_two_file_systems_share_nothing(xfs, btrfs):
    (xfs / "source").write_bytes(DATA)
    (btrfs / "source").write_bytes(DATA)
    for ours, theirs in ((xfs, btrfs), (btrfs, xfs)):
        with (ours / "source").open("rb") as source, (theirs / "target").open("xb") as target:
            assert not clone_range(source.fileno(), 0, BLOCK, target.fileno(), 0)
        assert (theirs / "target").stat().st_size == 0
        assert not can_clone(ours / "source", theirs)


@pytest.mark.parametrize("name", CANNOT)
def test_a_refusal_is_no_error(tmp_path, monkeypatch, name):
    monkeypatch.setattr(fcntl, "ioctl", raising(getattr(errno, name)))
    assert not cloned(tmp_path, 0, BLOCK, 0)


@pytest.mark.parametrize("name", ["EIO", "ENOSPC", "EDQUOT", "EROFS", "ENOMEM", "ESTALE", "EFBIG"])
def test_a_failure_of_the_disk_is_an_error(tmp_path, monkeypatch, name):
    monkeypatch.setattr(fcntl, "ioctl", raising(getattr(errno, name)))
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))) as caught:
        cloned(tmp_path, 0, BLOCK, 0)
    assert caught.value.errno == getattr(errno, name)


def test_the_request_is_the_one_that_the_kernel_defines(tmp_path, monkeypatch):
    """``struct file_clone_range`` of linux/fs.h, and FICLONERANGE, which is _IOW(0x94, 13, of that size)."""
    asked = []
    monkeypatch.setattr(fcntl, "ioctl", lambda target, request, argument: asked.append((target, request, argument)))
    assert clone_range(7, 3 << 40, 5 << 40, 9, 1 << 40)
    assert asked == [(9, 1 << 30 | 32 << 16 | 0x94 << 8 | 13, struct.pack("=qQQQ", 7, 3 << 40, 5 << 40, 1 << 40))]
    assert tmp_path.is_dir()


# Whether it can be done at all


def test_a_file_system_that_shares_is_recognized_and_left_as_it_was(sharing):
    (sharing / "source").write_bytes(DATA)
    (sharing / "inner").mkdir()
    assert can_clone(sharing / "source", sharing / "inner")
    assert list((sharing / "inner").iterdir()) == []
    assert (sharing / "source").read_bytes() == DATA


def test_a_file_system_that_does_not_share_is_recognized(separate):
    (separate / "source").write_bytes(DATA)
    assert not can_clone(separate / "source", separate)
    assert [path.name for path in separate.iterdir() if path.is_file()] == ["source"]


def test_a_file_of_less_than_a_block_has_nothing_to_share(sharing):
    (sharing / "source").write_bytes(bytes(BLOCK - 1))
    assert not can_clone(sharing / "source", sharing)


@pytest.mark.parametrize("name", [*CANNOT, "EIO", "EROFS"])
def test_what_cannot_be_found_out_cannot_be_done(tmp_path, monkeypatch, name):
    (tmp_path / "source").write_bytes(DATA)
    monkeypatch.setattr(cloning.fcntl, "ioctl", raising(getattr(errno, name)))
    assert not can_clone(tmp_path / "source", tmp_path)


def test_where_nothing_is_nothing_can_be_shared(tmp_path):
    (tmp_path / "source").write_bytes(DATA)
    assert not can_clone(tmp_path / "nothing", tmp_path)
    assert not can_clone(tmp_path / "source", tmp_path / "nowhere")
