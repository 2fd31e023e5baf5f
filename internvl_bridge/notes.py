"""What the owner of a checkpoint should know about a conversion: notes, and warnings that should stop some of them."""

import re
from collections.abc import Iterable
from pathlib import Path

from internvl_bridge.errors import bounded

_SNAPSHOT = re.compile(r".*/models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<rest>[^/]+(?:/.+)?)")
"""How huggingface_hub's cache calls a repository at a commit."""


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
    """How notes and the sidecar name ``path``: by its last name, as outputs are passed on to strangers.

    What lies in the hub's cache has a name that strangers have, too.

    Example:
        >>> called(Path("/home/me/.cache/huggingface/hub/models--OpenGVLab--InternVL3-8B/snapshots/4d6c"))
        'hf://OpenGVLab/InternVL3-8B@4d6c'
    """
    snapshot = _SNAPSHOT.fullmatch(str(path.absolute()))
    if snapshot is not None:
        return "hf://{owner}/{name}@{rest}".format_map(snapshot.groupdict())
    return path.absolute().name or str(path)
