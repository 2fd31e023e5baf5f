"""Say which directory may become an output, and where its files are collected."""

import os
from pathlib import Path

from internvl_bridge.errors import OutputError

SUFFIX = ".partial"
_MARKS = ("config.json", "internvl_bridge.json")
"""A directory that is a checkpoint, or an output of this program, has one of these."""


def check_output(source: Path, output: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if ``output`` must not be made: it exists, or lies in or around ``source``.

    With ``overwrite`` it may exist, if it is a checkpoint and nothing but that.
    """
    check_apart(output, source, "source")
    check_free(output, overwrite=overwrite)


def check_apart(output: Path, read: Path, what: str) -> None:
    """Raise OutputError if ``output`` is, holds or lies in the directory ``read``, the ``what`` of a conversion.

    A reference would be compared with itself after it was replaced; any of them would change while it is read.
    """
    if not output.name:
        raise OutputError(f"{output} is not a name for a directory.", "Give an output directory of its own.")
    around = Path(os.path.realpath(read))
    for place in (output, partial_path(output)):
        real = Path(os.path.realpath(place))
        if real == around:
            raise OutputError(
                f"{place} and {read} are the same directory, and a conversion does not change its {what}.",
                f"Give another output, for instance {around}-converted.",
            )
        if around in real.parents or real in around.parents:
            inner, outer = (place, read) if around in real.parents else (read, place)
            raise OutputError(
                f"{inner} lies inside {outer}.", f"Give an output beside the {what}, for instance {around}-converted."
            )
    if output.name == "..":
        raise OutputError(f"{output} is not a name for a directory.", "Give an output directory of its own.")
    if missing := [above for above in output.parents if above.name == ".." and not above.is_dir()]:
        raise OutputError(f"{missing[-1].parent} does not exist.", f"Did you mean {os.path.normpath(output)}?")


def partial_path(output: Path) -> Path:
    """Where the files of ``output`` are collected until they are complete."""
    return output.with_name(output.name + SUFFIX)


def check_free(output: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if anything but an empty directory is at ``output``, or cannot be replaced by a rename.

    With ``overwrite`` that may be the directory of a checkpoint.
    """
    if output.is_mount():
        raise is_mounted(output)
    if not os.path.lexists(output) or is_empty_directory(output):
        return
    reason = _refusal(output)
    if not overwrite:
        raise OutputError(
            f"{output} exists and is not an empty directory.",
            "Choose another output" + (", or replace it with --overwrite (overwrite=True)." if reason is None else "."),
        )
    if reason is not None:
        raise OutputError(reason, "Only plain checkpoints are overwritten: move it away, or choose another output.")


def _refusal(output: Path) -> str | None:
    """Why ``output``, which exists, is not overwritten."""
    if output.is_symlink() or not output.is_dir() or not any((output / mark).is_file() for mark in _MARKS):
        return f"{output} is not the directory of a checkpoint: it has no {' and no '.join(_MARKS)}, or is a link."
    if inner := sorted(path.name for path in output.iterdir() if path.is_dir()):
        return f"{output} holds more than a checkpoint: the directory {inner[0]}."
    return None


def is_mounted(output: Path) -> OutputError:
    """The refusal of ``output`` because something is mounted there."""
    return OutputError(
        f"{output} is a mount point or a volume of its own, and nothing can be renamed to that.",
        f"Give a directory inside it, for instance {output / 'converted'}",
    )


def is_empty_directory(path: Path) -> bool:
    """Whether ``path`` is a directory, not a link to one, and nothing is in it."""
    return is_plain_directory(path) and not any(path.iterdir())


def is_plain_directory(path: Path) -> bool:
    """Whether ``path`` is a directory, and not a link to one."""
    return path.is_dir() and not path.is_symlink()
