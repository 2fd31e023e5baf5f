"""Why a conversion was refused: one exception class per cause, each with the way out.

::

    BridgeError                     anything that this package refuses to do
    ├── OptionError                 an argument or option cannot be used, or one is missing
    ├── CheckpointError             a file of a checkpoint is malformed, missing, or contradicts another
    │   ├── ConfigError             ... config.json
    │   └── CompanionFileError      ... a file of the tokenizer, the processor, the sidecar
    ├── UnsupportedModelError       the model has no counterpart in the other format
    ├── TensorError                 the tensors are not those of a model that can be converted
    │   ├── UnknownKeyError         a key that no transform knows
    │   ├── MixedSpellingError      keys of two spellings
    │   ├── AmbiguousKeyError       a key that two transforms claim
    │   ├── DuplicateKeyError       two tensors for one key
    │   ├── IncompleteGroupError    a part of a fused tensor is missing
    │   ├── MissingKeyError         a tensor that config.json describes is missing
    │   ├── ContradictionError      a shape or dtype contradicts config.json or its group
    │   └── OutOfRangeError         a number that a dtype cannot hold would have to be stored in it
    ├── OutputError                 the output cannot be made, or must not be
    │   └── InUseError              ... now, as another run works on it
    ├── DifferenceError             what was written is not what was read
    └── ProofError                  a defect of this program, found before anything was written

Those that callers can act on are names of the package: ``internvl_bridge.OptionError`` and so on. Errors of the
operating system (OSError) are passed on, with the name of the file (:func:`named`).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LONGEST_TEXT = 2000


def shown(value: object) -> str:
    """``value`` as a message quotes it: never longer than a line."""
    return repr(value)[:80]


def bounded(text: str) -> str:
    """``text``, but for the middle of one that is very long: hostile keys can have megabytes."""
    half = _LONGEST_TEXT // 2
    return text if len(text) <= _LONGEST_TEXT else f"{text[:half]} ... {text[-half:]}"


def first_few(names: Sequence[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give an OSError without a file name the name ``path``: errors of calls on open files do not have it."""
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
        reason = bounded(reason)
        super().__init__(f"{reason} {remedy}")
        self.reason = reason
        self.remedy = remedy

    def __reduce__(self) -> tuple[type["BridgeError"], tuple[str, str], dict[str, Any]]:
        """How it is pickled: processes that work for another one send it back."""
        return type(self), (self.reason, self.remedy), self.__dict__


class OptionError(BridgeError):
    """An argument or option cannot be used, or one is missing that the input needs."""


class CheckpointError(BridgeError):
    """A file of a checkpoint is malformed, missing, or contradicts another file."""


class ConfigError(CheckpointError):
    """config.json is malformed, lacks something that the conversion needs, or contradicts itself."""


class CompanionFileError(CheckpointError):
    """A file next to the weights and config.json (tokenizer, processor, sidecar, ...) cannot be used."""


class UnsupportedModelError(BridgeError):
    """The directory holds a model that has no counterpart in the other format."""


class TensorError(BridgeError):
    """The tensors are not those of a model that can be converted."""


class UnknownKeyError(TensorError):
    """A tensor key matches no transform."""


class MixedSpellingError(TensorError):
    """Some tensor keys of an HF checkpoint are spelled in one way, and some in another."""


class AmbiguousKeyError(TensorError):
    """A tensor key matches more than one transform."""


class DuplicateKeyError(TensorError):
    """Two sources claim the same tensor key."""


class IncompleteGroupError(TensorError):
    """Some, but not all, parts of a fused tensor are present."""


class MissingKeyError(TensorError):
    """A tensor that config.json asks for is absent."""


class ContradictionError(TensorError):
    """A tensor's existence, shape or dtype contradicts config.json or its own group."""


class OutOfRangeError(TensorError):
    """A computed number is not finite in the dtype that it is to be stored in."""


class OutputError(BridgeError):
    """The output directory cannot be created, or must not be, or a report cannot be printed."""


class InUseError(OutputError):
    """Another run works on the output now."""


class DifferenceError(BridgeError):
    """What was written is not what was read."""


class ProofError(BridgeError):
    """A plan is not reversible, or a file would not hold what was planned: a defect of this program."""
