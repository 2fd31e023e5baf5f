"""Make the directory in which an output is collected."""

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.journal import JOURNAL, foreign
from internvl_bridge.storage.output_place import is_empty_directory
from internvl_bridge.storage.permissions import OWNER_DIRECTORY


def make_partial(partial: Path) -> list[Path]:
    """Make the directory ``partial`` and those above it; the ones that were not there, the innermost first."""
    made = [path for path in (partial, *partial.parents) if not os.path.lexists(path)]
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            partial.mkdir(mode=OWNER_DIRECTORY)
        check_ours(partial)
    except OSError as error:
        remove_empty(made)
        where = "" if error.filename in {None, str(partial)} else f"{error.filename}: "
        remedy = "Make room, or choose" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "Choose"
        raise OutputError(
            f"{partial} cannot be created: {where}{error.strerror}.", f"{remedy} another output directory."
        ) from error
    return made


def check_ours(partial: Path) -> None:
    """Raise OutputError if what is at ``partial`` is not of this program."""
    if partial.is_symlink() or not (is_empty_directory(partial) or (partial / JOURNAL).is_file()):
        raise foreign(partial)


def remove_empty(directories: Sequence[Path]) -> None:
    """Remove those of ``directories``, the innermost first, that hold nothing."""
    for path in directories:
        with suppress(OSError):  # not empty, or gone already
            path.rmdir()
