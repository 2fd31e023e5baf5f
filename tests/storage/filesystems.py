"""Real file systems for the tests that need one: fixtures that mount a fresh, empty image.

``xfs`` and ``btrfs`` share blocks between files, ``ext4`` does not; each is the Path of a mount of its own, unmounted
after the test. They need root, loop devices and the file system's driver: without these, the test is skipped with the
reason. A test module asks for them by ``pytest_plugins = ["storage.filesystems"]``, and may import the functions, too
(hence, for pytest: PYTEST_DONT_REWRITE).

The images in tests/data/filesystems were made so, and packed by ``xz -9e``::

    truncate -s 300M xfs.img && mkfs.xfs -m reflink=1 xfs.img
    truncate -s 110M btrfs.img && mkfs.btrfs -m single -d single btrfs.img
    truncate -s 64M ext4.img && mkfs.ext4 -b 4096 -E lazy_itable_init=1 ext4.img
"""

import fcntl
import lzma
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.output_shards import OutputShard

IMAGES = Path(__file__).parent.parent / "data" / "filesystems"
BLOCK = 4096
_STEP = 1 << 20
_OPTIONS = {"xfs": ("-o", "nouuid")}  # two mounts of one image have one UUID
_PATIENCE = 60
"""Seconds after which a command that mounts or unmounts has failed."""

_FIEMAP = 0xC020660B
_FIEMAP_HEADER = struct.Struct("=QQIIII")
_FIEMAP_EXTENT = struct.Struct("=QQQQQIIII")
_MOST_EXTENTS = 1000


@pytest.fixture
def xfs() -> Iterator[Path]:
    with mounted("xfs") as directory:
        yield directory


@pytest.fixture
def btrfs() -> Iterator[Path]:
    with mounted("btrfs") as directory:
        yield directory


@pytest.fixture
def ext4() -> Iterator[Path]:
    with mounted("ext4") as directory:
        yield directory


@pytest.fixture
def tmpfs() -> Iterator[Path]:
    """A directory in the file system that is memory only."""
    shared = Path("/dev/shm")  # noqa: S108
    if not os.access(shared, os.W_OK):
        pytest.skip("this machine has no /dev/shm to write to")
    with tempfile.TemporaryDirectory(dir=shared) as directory:
        yield Path(directory)


@contextmanager
def mounted(kind: str) -> Iterator[Path]:
    """A fresh file system of ``kind`` (an image in tests/data/filesystems); gone, with all in it, afterwards."""
    if os.geteuid():
        pytest.skip("only root may mount a file system")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=_place_of_images())))
        image, directory = scratch / "image", scratch / "mount"
        directory.mkdir()
        size, blocks = _unpacked(kind)
        with image.open("wb") as file:
            for offset, block in blocks:
                file.seek(offset)
                file.write(block)
            file.truncate(size)
        device = _needed("losetup", "--find", "--show", str(image)).strip()
        stack.callback(_tried, "losetup", "--detach", device)
        _needed("mount", "-t", kind, *_OPTIONS.get(kind, ()), device, str(directory))
        stack.callback(_unmount, directory)
        yield directory


def shared_blocks(left: Path, right: Path) -> set[int]:
    """Where in ``left`` its blocks are the very blocks of the disk that ``right`` has, too."""
    theirs = set(_blocks(right).values())
    return {offset for offset, place in _blocks(left).items() if place in theirs}


def wanted(job: OutputShard) -> bytes:
    """What the file that ``job`` describes must hold."""
    return job.header + b"".join(_bytes_of(byte_range) for byte_range in job.ranges)


def open_files() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


def _bytes_of(byte_range: ByteRange) -> bytes:
    with byte_range.path.open("rb") as file:
        file.seek(byte_range.offset)
        return file.read(byte_range.length)


def _blocks(path: Path) -> dict[int, int]:
    """Where on the disk each block of ``path`` lies, by its place in the file."""
    room = _FIEMAP_EXTENT.size * _MOST_EXTENTS
    request = bytearray(_FIEMAP_HEADER.pack(0, 2**64 - 1, 1, 0, _MOST_EXTENTS, 0) + bytes(room))  # 1: sync first
    with path.open("rb") as file:
        fcntl.ioctl(file, _FIEMAP, request)
    count = _FIEMAP_HEADER.unpack_from(request)[3]
    assert count < _MOST_EXTENTS
    extents = (_FIEMAP_EXTENT.unpack_from(request, _FIEMAP_HEADER.size + n * _FIEMAP_EXTENT.size) for n in range(count))
    return {
        logical + step: physical + step for logical, physical, length, *_ in extents for step in range(0, length, BLOCK)
    }


@cache
def _unpacked(kind: str) -> tuple[int, list[tuple[int, bytes]]]:
    """The size of the image of ``kind``, and those of its blocks that are not zeros, with their offsets."""
    size, blocks = 0, list[tuple[int, bytes]]()
    with lzma.open(IMAGES / f"{kind}.img.xz") as file:
        while chunk := file.read(_STEP):
            for start in range(0, len(chunk), BLOCK):
                block = chunk[start : start + BLOCK]
                if block.count(0) < len(block):
                    blocks.append((size + start, block))
            size += len(chunk)
    return size, blocks


def _place_of_images() -> str | None:
    """Memory, if there is room for a full image, as it is fast; else where temporary files are."""
    shared = Path("/dev/shm")  # noqa: S108
    if not os.access(shared, os.W_OK):
        return None
    there = os.statvfs(shared)
    return str(shared) if there.f_bavail * there.f_frsize > 1 << 30 else None


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=_PATIENCE)


def _needed(*command: str) -> str:
    """What ``command`` says; the test is skipped if it fails, as then the machine cannot do it."""
    try:
        done = _run(*command)
    except OSError as error:
        pytest.skip(f"{command[0]} cannot be run: {error}")
    if done.returncode:
        pytest.skip(f"{' '.join(command)} fails here: {done.stderr.strip()}")
    return done.stdout


def _tried(*command: str) -> bool:
    """Whether ``command`` succeeds: what cleans up must go on to what is to be cleaned up next."""
    try:
        return _run(*command).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _unmount(directory: Path) -> None:
    if not _tried("umount", str(directory)):
        _tried("umount", "--lazy", str(directory))  # something still uses it
