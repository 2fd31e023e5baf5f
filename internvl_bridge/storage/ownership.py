"""Refuse an unfinished output that belongs to another user."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.held_directory import HeldDirectory


def check_owner(around: HeldDirectory, names: tuple[str, ...]) -> None:
    """Raise OutputError if the directory ``around``, or what has one of ``names`` in it, belongs to another user.

    Its owner could put a link in the place of what this program removes and writes.
    """
    statuses = {around.path: os.fstat(around.handle), **{around.path / name: around.found(name) for name in names}}
    for path, status in statuses.items():
        if status is None or status.st_uid == os.geteuid() or status.st_uid == owner_of_new(around.path.parent):
            continue
        raise OutputError(
            f"{path} belongs to another user (number {status.st_uid}), who could make this program write and remove "
            f"files elsewhere.",
            "Choose an output in a directory where only you can write, or remove it.",
        )


def owner_of_new(directory: Path) -> int:
    """Whom a new directory in ``directory`` belongs to: servers and mounts may map users to others."""
    try:
        new = Path(tempfile.mkdtemp(prefix="owner-", dir=directory))
    except OSError:
        return os.geteuid()
    try:
        return new.lstat().st_uid
    finally:
        with suppress(OSError):
            new.rmdir()
