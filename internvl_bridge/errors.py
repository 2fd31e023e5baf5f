"""Why a conversion was refused: one exception class per cause, each naming the way out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

_LONGEST_REASON = 2000


def shown(value: object) -> str:
    """``value`` as a message quotes it: never longer than a line."""
    return repr(value)[:80]


def first_few(names: Sequence[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give an OSError that names no file the name ``path``: those of calls on open files do not name it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


class BridgeError(Exception):
    """Anything this package refuses to do.

    ``str(error)`` is one paragraph: what is wrong (naming the file and the key), then the remedy.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        if len(reason) > _LONGEST_REASON:  # hostile keys can have megabytes
            half = _LONGEST_REASON // 2
            reason = f"{reason[:half]} ... {reason[-half:]}"
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy


class CheckpointError(BridgeError):
    """A file of a checkpoint is malformed, missing, or contradicts another file."""


class ConfigError(BridgeError):
    """config.json or a tokenizer file is malformed or lacks something the conversion needs."""


class UnsupportedModelError(BridgeError):
    """The directory holds a model that has no counterpart in the other format."""


class UnknownKeyError(BridgeError):
    """A tensor key matches no transform."""


class MixedSpellingError(BridgeError):
    """Some tensor keys of an HF checkpoint are spelled in one way, and some in another."""


class AmbiguousKeyError(BridgeError):
    """A tensor key matches more than one transform."""


class DuplicateKeyError(BridgeError):
    """Two sources claim the same tensor key."""


class IncompleteGroupError(BridgeError):
    """Some, but not all, parts of a fused tensor are present."""


class MissingKeyError(BridgeError):
    """A tensor that config.json asks for is absent."""


class ContradictionError(BridgeError):
    """A tensor's existence, shape or dtype contradicts config.json or its own group."""


class ProofError(BridgeError):
    """A plan is not reversible: an element would be lost, used twice or moved elsewhere."""


class OutputError(BridgeError):
    """The output directory cannot be created, or must not be, or a report cannot be printed."""


class DifferenceError(BridgeError):
    """What was written is not what was read."""
