"""Make the names in a directory durable."""

import errno
import os
from pathlib import Path

from internvl_bridge.errors import named

_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP}


def sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable, as far as its file system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # what is above an output need not be readable
        return
    try:
        with named(path):
            os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)
