"""Put a link to a file into a directory that is held open."""

import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.free_space import existing_ancestor
from internvl_bridge.storage.held_directory import HeldDirectory

Link = Literal["hard", "symbolic"]
"""What stands for a file: one more name of it, or a file that holds its path."""

_NOT_ALLOWED = {errno.EPERM, errno.EACCES}
_CANNOT = {errno.EXDEV, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, *_NOT_ALLOWED}
"""The refusals of file systems: other errors are failures of the disk."""
_ELSEWHERE = "the output is on another file system"


def make_link(directory: HeldDirectory, name: str, path: Path, kind: Link) -> None:
    """Make ``name`` in ``directory`` a link to the file ``path``, which is not a link itself.

    Raises OutputError, with the reason, if the file system refuses it, or if the link leads to another file.
    """
    try:
        if kind == "symbolic":
            os.symlink(path, name, dir_fd=directory.handle)
        else:
            os.link(path, name, dst_dir_fd=directory.handle, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANNOT:
            error.filename, error.filename2 = str(directory.path / name), None
            raise
        raise _refused(path, kind, _reason(error, path, kind)) from error
    if not leads_to(directory, name, path):
        directory.remove(name)
        raise _refused(path, kind, f"what has its name then is another file than {path}")


def check_device(paths: Iterable[Path], output: Path) -> None:
    """Raise OutputError if one of ``paths`` is on another file system than ``output``, as far as that can be seen."""
    device = existing_ancestor(output.parent).stat().st_dev
    for path in paths:
        if path.stat().st_dev != device:
            raise _refused(path, "hard", _ELSEWHERE)


def leads_to(directory: HeldDirectory, name: str, path: Path) -> bool:
    """Whether ``name`` in ``directory`` is a link to ``path``, of either kind."""
    found = directory.found(name)
    if found is None:
        return False
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(name, dir_fd=directory.handle) == str(path) and path.is_file()
    return os.path.samestat(found, path.lstat())


def _reason(error: OSError, path: Path, kind: Link) -> str:
    if error.errno == errno.EXDEV:
        return _ELSEWHERE
    if error.errno == errno.EMLINK:
        return "the file has as many links as its file system allows"
    if error.errno in _NOT_ALLOWED and kind == "hard" and not os.access(path, os.W_OK):
        return "the file is another user's, and this system protects such files (fs.protected_hardlinks)"
    return f"the file system of the output does not have such links ({error.strerror})"


def _refused(path: Path, kind: Link, reason: str) -> OutputError:
    remedy = "Use --link symbolic, or convert without --link." if kind == "hard" else "Convert without --link."
    return OutputError(f"{path} cannot be linked ({kind}): {reason}.", remedy)
