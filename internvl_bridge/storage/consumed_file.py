"""What is written down about a file of a source before it is deleted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ConsumedFile:
    """A file of a source that was deleted: what it was, and the files of the output that have its tensors.

    ``size`` is in bytes, ``modified`` in nanoseconds, ``header`` a checksum. ``mode`` and ``group`` are its
    permissions. ``made`` has the checksums of the files of the output, by name. ``checksums`` are those of its tensors
    that were compared with what the source records, by key.
    """

    name: str
    size: int
    modified: int
    header: str
    mode: int
    group: int
    made: Mapping[str, str]
    checksums: Mapping[str, str]


def parsed_file(value: object) -> ConsumedFile | None:
    """What ``value``, which :func:`dataclasses.asdict` has made of a file, says; None if it says nothing that can be.

    Example:
        >>> parsed_file({"name": "../a", "size": 1}) is None
        True
    """
    match value:
        case {
            "name": str(name),
            "size": int(size),
            "modified": int(modified),
            "header": str(header),
            "mode": int(mode),
            "group": int(group),
            "made": dict(made),
            "checksums": dict(sums),
        } if Path(name).name == name and _are_texts(made) and _are_texts(sums):
            return ConsumedFile(name, size, modified, header, mode, group, made, sums)
        case _:
            return None


def _are_texts(values: Mapping[object, object]) -> bool:
    return all(isinstance(text, str) for text in (*values, *values.values()))
