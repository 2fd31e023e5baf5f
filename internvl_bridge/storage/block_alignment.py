"""Where in a file each part lies, and which parts a file system could share with their source."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from internvl_bridge.storage.byte_range import ByteRange

BLOCK = 4096
"""Bytes: what file systems that share data share it by, and what memory and disks are aligned to."""

_LONG = 1 << 16
"""Bytes from which on sharing a run costs less than copying it."""

Part = bytes | ByteRange
"""Bytes of a file to write: themselves, or where they lie."""


@dataclass(frozen=True, slots=True)
class FileSegment:
    """A part of a file and the offset where it starts.

    ``shareable``: it consists of whole blocks here and in its source, so that a file system may have them once.
    """

    offset: int
    part: Part
    shareable: bool

    @property
    def length(self) -> int:
        return len(self.part) if isinstance(self.part, bytes) else self.part.length


def file_segments(header: bytes, ranges: Iterable[ByteRange]) -> Iterator[FileSegment]:
    """The parts of a file that starts with ``header``; long ranges are cut where their blocks begin and end."""
    yield FileSegment(0, header, shareable=False)
    offset = len(header)
    for byte_range in ranges:
        head = -offset % BLOCK
        blocks = (byte_range.length - head) // BLOCK * BLOCK
        if blocks < _LONG or (byte_range.offset - offset) % BLOCK or not byte_range.is_stored:
            yield FileSegment(offset, byte_range, shareable=False)
        else:
            for start, stop in pairwise((0, head, head + blocks, byte_range.length)):
                if start < stop:
                    part = ByteRange(byte_range.path, byte_range.offset + start, stop - start)
                    yield FileSegment(offset + start, part, shareable=start == head)
        offset += byte_range.length


def congruent_start(least: int, ranges: Iterable[ByteRange]) -> int:
    """Where, from ``least`` on, data that consists of ``ranges`` should start so that most of it can be shared.

    Less than a block later. What can be shared is whole blocks that start at multiples of BLOCK in both files. The
    answer depends on the ranges alone and not on any file system: the same conversion writes the same bytes anywhere.
    """
    weights: Counter[int] = Counter()
    position = 0
    for byte_range in ranges:
        if byte_range.length >= _LONG and byte_range.is_stored:
            weights[(byte_range.offset - position) % BLOCK] += byte_range.length
        position += byte_range.length
    if not weights:
        return least
    start = least + (weights.most_common(1)[0][0] - least) % BLOCK
    return least if start % 8 else start  # the library starts data at multiples of 8
