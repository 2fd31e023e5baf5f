"""Let two files share blocks on disk instead of copying them, where the file system can do that.

XFS (with reflink, the default since 2018), btrfs, bcachefs, and NFS 4.2 from a server that has one of those. Whether
it can is found by trying. FICLONERANGE is asked for, and not copy_file_range, because the latter copies in silence
where it cannot share: then nobody could say which it was, and its copy is slower than ours.
"""

import errno
import fcntl
import os
import struct
import tempfile
from pathlib import Path

from internvl_bridge.storage.block_alignment import BLOCK

_FICLONERANGE: int = getattr(fcntl, "FICLONERANGE", 0x4020940D)  # named by Python from 3.12 on
# The refusals of the file system: other errors are failures of the disk.
_CANNOT = {
    errno.EOPNOTSUPP,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EXDEV,
    errno.EINVAL,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
}


def clone_range(source: int, start: int, length: int, target: int, offset: int) -> bool:
    """Make ``length`` bytes at ``offset`` of ``target`` the very blocks that ``source`` has at ``start``.

    False if the file system cannot; then nothing was changed. All numbers must be multiples of its block size. Raises
    OSError for failures of the disk.
    """
    request = struct.pack("=qQQQ", source, start, length, offset)
    try:
        fcntl.ioctl(target, _FICLONERANGE, request)
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise
    return True


def can_clone(source: Path, directory: Path) -> bool:
    """Whether new files in ``directory`` can share blocks with ``source``, found out by a file without a name."""
    try:
        with source.open("rb") as ours, tempfile.TemporaryFile(dir=directory) as theirs:
            return os.fstat(ours.fileno()).st_size >= BLOCK and clone_range(ours.fileno(), 0, BLOCK, theirs.fileno(), 0)
    except OSError:
        return False
