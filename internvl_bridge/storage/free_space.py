"""Room on the disk: how much there is, and how to claim it."""

import ctypes
import errno
import os
from contextlib import suppress
from pathlib import Path


def free_bytes(path: Path) -> int:
    """Bytes that this user may still write to the file system where ``path`` is, or would be."""
    there = os.statvfs(existing_ancestor(path))
    return there.f_bavail * there.f_frsize


def used_bytes(directory: Path) -> int:
    """Bytes on the disk of all that is below ``directory``; what is removed meanwhile does not count."""
    total = 0
    for above, _, names in os.walk(directory):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(f"{above}/{name}").st_blocks * 512
    return total


def existing_ancestor(path: Path) -> Path:
    """``path`` itself, or the nearest directory above it that exists."""
    path = Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow what is not there yet)
    while not path.exists():
        path = path.parent
    return path


def allocate(file: int, size: int) -> None:
    """Claim the blocks of a new file of ``size`` bytes: a full disk fails now, and the blocks lie together.

    Does nothing where the file system cannot; :func:`os.posix_fallocate` would write a byte to every block there.
    Raises OSError if there is no room.
    """
    fallocate = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None)
    if fallocate is None or not size:  # not on Linux
        return
    if fallocate(file, 0, ctypes.c_int64(0), ctypes.c_int64(size)):
        number = ctypes.get_errno()
        if number in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:
            raise OSError(number, os.strerror(number))
