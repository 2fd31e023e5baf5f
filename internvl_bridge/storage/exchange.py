"""Let two directories change places in one step, where the system can do that."""

import ctypes
import errno
import os

from internvl_bridge.storage.held_directory import HeldDirectory

_RENAME_EXCHANGE = 2
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM}
"""Older kernels, NFS and other file systems; and sandboxes, which forbid calls that they do not know."""


def exchange(left: HeldDirectory, name: str, right: HeldDirectory, other: str) -> bool:
    """Let ``name`` in ``left`` and ``other`` in ``right`` change places: at no instant is either absent.

    False if the system or the file system cannot do that (renameat2, Linux 3.15); then nothing was changed. Raises
    OSError, naming the second one, for every other reason.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:  # not on Linux
        return False
    if not renameat2(left.handle, os.fsencode(name), right.handle, os.fsencode(other), _RENAME_EXCHANGE):
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(right.path / other))
