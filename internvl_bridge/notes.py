"""What the owner of a checkpoint should know about a conversion: notes, and warnings that should stop some of them."""

from collections.abc import Iterable
from pathlib import Path

from internvl_bridge.errors import bounded


class Warn(str):
    """A note that should stop somebody before the work: the output lacks something, or computes something else.

    It is a text like any other note. So functions that make notes need to know nothing of the difference.
    """

    __slots__ = ()


def warnings_of(notes: Iterable[str]) -> tuple[str, ...]:
    """Those of ``notes`` that are warnings."""
    return tuple(bounded(note) for note in notes if isinstance(note, Warn))


def without_warnings(notes: Iterable[str]) -> tuple[str, ...]:
    """Those of ``notes`` that are not warnings."""
    return tuple(bounded(note) for note in notes if not isinstance(note, Warn))


def called(path: Path) -> str:
    """How notes and the sidecar name ``path``: by its last name, as outputs are passed on to strangers."""
    return path.absolute().name or str(path)
