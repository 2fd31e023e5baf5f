"""Try the last step of an output before the first: the rename that gives it its place."""

import errno
import secrets
from contextlib import suppress

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.output_place import is_empty_directory, is_mounted
from internvl_bridge.storage.workspace import Place

_TRIAL, _OCCUPIED = "trial", "occupied"
_IN_USE = {errno.ENOTEMPTY, errno.EEXIST}
_CANNOT = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES}
"""What file systems say that cannot rename a directory, or not there. Other errors are failures of the disk."""


def try_renames(place: Place) -> None:
    """Raise OutputError if what is collected for an output could not get its place by a rename in the end.

    A new directory is renamed to a name beside the output. What is at the output already is renamed to that directory
    when it is not empty. That fails everywhere, and the error shows whether it could be moved at all. Nothing is left.
    """
    beside = f".{place.name[:100]}.{secrets.token_hex(4)}"
    place.around.make(_TRIAL)
    try:
        _try_new(place, beside)
        if place.above.has_directory(place.name):
            _try_old(place, beside)
    finally:
        for directory, name in (
            (place.above, f"{beside}/{_OCCUPIED}"),
            (place.above, beside),
            (place.around, _TRIAL),
        ):
            with suppress(OSError):  # it was not made, or was moved
                directory.remove_empty(name)


def _try_new(place: Place, beside: str) -> None:
    try:
        place.around.move(_TRIAL, place.above, beside)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        raise OutputError(
            f"{place.above.path} is on a file system that cannot rename an output to its place: {error.strerror}.",
            "Choose an output on another disk, and copy it there when it is complete.",
        ) from error


def _try_old(place: Place, beside: str) -> None:
    place.above.make(f"{beside}/{_OCCUPIED}")
    try:
        place.above.move(place.name, place.above, beside)
    except OSError as error:
        if error.errno in _IN_USE:
            return
        if error.errno == errno.EXDEV and is_empty_directory(place.output):
            return  # it need not be moved: the new output takes its name
        if error.errno == errno.EBUSY:
            raise is_mounted(place.output) from error
        if error.errno not in _CANNOT:
            raise
        raise OutputError(
            f"{place.output} cannot be replaced, because it cannot be renamed: {error.strerror}.",
            "Remove it and leave out --overwrite, or choose another output.",
        ) from error
    place.above.move(beside, place.above, place.name)
