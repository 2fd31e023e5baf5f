"""A range of bytes of a file, wherever that file lies."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ByteRange:
    """The bytes ``[offset, offset + length)`` of a file.

    ``is_stored``: they lie on a disk. Other bytes are computed when the file is read, so that nothing can share them.
    """

    path: Path
    offset: int
    length: int
    is_stored: bool = True


def coalesced(ranges: Iterable[ByteRange]) -> tuple[ByteRange, ...]:
    """The same bytes in the fewest ranges."""
    result: list[ByteRange] = []
    for byte_range in ranges:
        last = result[-1] if result else None
        if last and last.path == byte_range.path and last.offset + last.length == byte_range.offset:
            result[-1] = ByteRange(last.path, last.offset, last.length + byte_range.length, last.is_stored)
        elif byte_range.length:
            result.append(byte_range)
    return tuple(result)
