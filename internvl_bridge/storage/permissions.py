"""Give new files no more permissions than those have from which they are made."""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.storage.held_directory import HeldDirectory

OWNER_FILE, OWNER_DIRECTORY = 0o600, 0o700
"""What the owner of a new file and of a new directory can always do."""
_ANY_FILE, _ANY_DIRECTORY = 0o666, 0o777
_OTHERS_AS_GROUP = 3
"""Bits between the permissions of others and those of the group."""


@dataclass(frozen=True, slots=True)
class Permissions:
    """Mode and group of each file of a source, and those of its directory. Empty ones limit nothing."""

    files: frozenset[tuple[int, int]] = frozenset()
    directory: frozenset[tuple[int, int]] = frozenset()

    def of_files(self, group: int) -> int:
        """The mode of new files that belong to ``group``, before the umask."""
        return _ANY_FILE & (OWNER_FILE | _common(self.files, group))

    def of_directory(self, group: int) -> int:
        """The mode of a new directory that belongs to ``group``, before the umask."""
        return _ANY_DIRECTORY & (OWNER_DIRECTORY | _common(self.directory, group))


ANY = Permissions()


def permissions_of(directory: Path, files: Iterable[Path]) -> Permissions:
    """Those of ``directory``, a source, and of its ``files``, or of what they lead to."""
    return Permissions(frozenset(map(_mode_and_group, files)), frozenset({_mode_and_group(directory)}))


def for_another_group(mode: int) -> int:
    """``mode`` for a file of another group, whose members were others: they get what both could do."""
    both = mode & (mode & stat.S_IRWXO) << _OTHERS_AS_GROUP
    return mode & ~stat.S_IRWXG | both & stat.S_IRWXG


def allow_owner(handle: int, mode: int) -> None:
    """Let the owner of the open file or directory ``handle`` do what ``mode`` says, whatever the umask took away."""
    now = stat.S_IMODE(os.fstat(handle).st_mode)
    if now & mode != mode:
        with suppress(OSError):  # some file systems have no modes of their own
            os.fchmod(handle, now | mode)


def prepare_directory(new: HeldDirectory, permissions: Permissions, old: os.stat_result | None) -> None:
    """Give the directory ``new`` the mode and the group of the ``old`` one, whose place it takes, if there is one.

    Otherwise it gets no more than ``permissions``. Where it cannot get the group, its own gets no more than others had.
    """
    status = os.fstat(new.handle)
    group = status.st_gid
    if old is None or not stat.S_ISDIR(old.st_mode):
        mode = stat.S_IMODE(status.st_mode) & ~_ANY_DIRECTORY | status.st_mode & permissions.of_directory(group)
    else:
        mode = stat.S_IMODE(old.st_mode)
        if group != old.st_gid:
            try:
                os.fchown(new.handle, -1, old.st_gid)
            except OSError:
                mode = for_another_group(mode) & ~stat.S_ISGID
    with suppress(OSError):  # some file systems have no modes of their own
        os.fchmod(new.handle, mode | OWNER_DIRECTORY)


def _mode_and_group(path: Path) -> tuple[int, int]:
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_gid


def _common(found: Iterable[tuple[int, int]], group: int) -> int:
    """What all of them allow to a file of ``group``."""
    allowed = stat.S_IRWXG | stat.S_IRWXO
    for mode, owner in found:
        allowed &= mode if owner == group else for_another_group(mode)
    return allowed
