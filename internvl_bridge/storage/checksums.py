"""Checksums of files and of parts of them, taken as their bytes pass."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from zlib import crc32

import xxhash

ALGORITHM = "xxh3_128"
"""A checksum that finds damage and mistakes at the speed of memory. It does not protect against forgers."""

Interval = tuple[int, int]
"""Where in a stream of bytes a part begins, and where it ends."""


@dataclass(frozen=True, slots=True)
class FileChecksums:
    """The checksum of a whole file, those of some intervals of it, and the CRC-32 of others."""

    whole: str
    parts: Mapping[Interval, str]
    crcs: Mapping[Interval, int] = field(default_factory=dict)


class Updated(Protocol):
    """What takes bytes as they pass."""

    def update(self, window: memoryview, /) -> None:
        """Take the next bytes."""


def new_checksum() -> xxhash.xxh3_128:
    """An empty checksum, to be updated."""
    return xxhash.xxh3_128()


def checksum_of(pieces: Iterable[bytes]) -> str:
    """The checksum of all ``pieces`` together, in hexadecimal digits."""
    checksum = new_checksum()
    for piece in pieces:
        checksum.update(piece)
    return checksum.hexdigest()


def text_checksum(text: str) -> str:
    """The checksum of ``text`` in UTF-8."""
    return checksum_of([text.encode(errors="surrogatepass")])


def hashed(windows: Iterable[memoryview], checksum: Updated) -> Iterator[memoryview]:
    """``windows`` as they are, each added to ``checksum`` as it passes."""
    for window in windows:
        checksum.update(window)
        yield window


class PassingChecksums:
    """Takes the checksum of a stream, and of ``intervals`` of it, which may overlap; and the CRC-32 of ``others``."""

    __slots__ = ("_coming", "_crcs", "_open", "_parts", "_position", "_whole")

    def __init__(self, intervals: Iterable[Interval] = (), others: Iterable[Interval] = ()) -> None:
        self._whole, self._position = new_checksum(), 0
        checksums = [(interval, False) for interval in {*intervals}]
        self._coming = sorted([*checksums, *((interval, True) for interval in {*others})], reverse=True)
        self._open: list[tuple[Interval, xxhash.xxh3_128 | _Crc]] = []
        self._parts: dict[Interval, str] = {}
        self._crcs: dict[Interval, int] = {}

    def update(self, window: memoryview, /) -> None:
        """Take the next bytes."""
        self._whole.update(window)
        begin, self._position = self._position, self._position + len(window)
        while self._coming and self._coming[-1][0][0] < self._position:  # the next one is the last
            interval, is_crc = self._coming.pop()
            self._open.append((interval, _Crc() if is_crc else new_checksum()))
        for (start, stop), checksum in self._open:
            checksum.update(window[max(start - begin, 0) : stop - begin])
            if stop > self._position:
                continue
            if isinstance(checksum, _Crc):
                self._crcs[start, stop] = checksum.value
            else:
                self._parts[start, stop] = checksum.hexdigest()
        self._open = [(interval, checksum) for interval, checksum in self._open if interval[1] > self._position]

    @property
    def result(self) -> FileChecksums:
        """The checksums of what has passed; intervals that have not ended have none, but for empty ones."""
        empty = {place: new_checksum().hexdigest() for place, _ in self._coming if place[0] == place[1]}
        return FileChecksums(self._whole.hexdigest(), {**self._parts, **empty}, self._crcs)


class _Crc:
    """A CRC-32, taken as bytes pass."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def update(self, window: memoryview, /) -> None:
        self.value = crc32(window, self.value)
