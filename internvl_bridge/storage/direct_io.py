"""Move data between memory and disk without a copy in the page cache, where the file system can do that.

The page cache is what limits copying on a fast disk. A large output in it displaces everything else. Which file systems
can is found by trying: some refuse the flag, some only the first transfer.
"""

import errno
import fcntl
import os

_DIRECT: int = getattr(os, "O_DIRECT", 0)  # Linux only
_CANNOT = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS}


def use_direct_io(file: int) -> bool:
    """Make transfers of the descriptor ``file`` bypass the page cache; whether the file system takes that."""
    try:
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | _DIRECT)
    except OSError:
        return False
    return is_direct(file)


def is_direct(file: int) -> bool:
    """Whether transfers of ``file`` bypass the page cache."""
    return bool(fcntl.fcntl(file, fcntl.F_GETFL) & _DIRECT)


def use_page_cache(file: int) -> None:
    """Make transfers of ``file`` use the page cache."""
    if is_direct(file):
        fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) & ~_DIRECT)


def is_refusal(error: OSError) -> bool:
    """Whether a transfer failed because the file system cannot bypass the page cache, for it or at all."""
    return error.errno in _CANNOT
