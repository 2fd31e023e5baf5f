"""A range of bytes of a file, wherever that file lies."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


# A named tuple, as there is one for every tensor: a frozen dataclass takes twice as long to make.
class ByteRange(NamedTuple):
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
    end = 0
    first: ByteRange | None = None  # of those that become one
    for byte_range in ranges:
        if first is not None and byte_range.offset == end and _are_of_one_file(first, byte_range):
            end += byte_range.length
        elif byte_range.length:
            if first is not None:
                result.append(_up_to(first, end))
            first, end = byte_range, byte_range.offset + byte_range.length
    if first is not None:
        result.append(_up_to(first, end))
    return tuple(result)


def _are_of_one_file(one: ByteRange, other: ByteRange) -> bool:
    return one.path is other.path or one.path == other.path  # to compare paths is slow


def _up_to(byte_range: ByteRange, end: int) -> ByteRange:
    """The bytes from the start of ``byte_range`` up to ``end``."""
    length = end - byte_range.offset
    return byte_range if length == byte_range.length else byte_range._replace(length=length)
