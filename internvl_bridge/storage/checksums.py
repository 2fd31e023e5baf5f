"""Checksums of files and of parts of them, taken as their bytes pass."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import xxhash

ALGORITHM = "xxh3_128"
"""A checksum that finds damage and mistakes at the speed of memory. It does not protect against forgers."""

Interval = tuple[int, int]
"""Where in a stream of bytes a part begins, and where it ends."""


@dataclass(frozen=True, slots=True)
class FileChecksums:
    """The checksum of a whole file, and those of some intervals of it."""

    whole: str
    parts: Mapping[Interval, str]


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
    """Takes the checksum of a stream, and of ``intervals`` of it, which may overlap."""

    __slots__ = ("_coming", "_open", "_parts", "_position", "_whole")

    def __init__(self, intervals: Iterable[Interval] = ()) -> None:
        self._whole, self._position = new_checksum(), 0
        self._coming = sorted({*intervals}, reverse=True)  # the next one is the last
        self._open: list[tuple[Interval, xxhash.xxh3_128]] = []
        self._parts: dict[Interval, str] = {}

    def update(self, window: memoryview, /) -> None:
        """Take the next bytes."""
        self._whole.update(window)
        begin, self._position = self._position, self._position + len(window)
        while self._coming and self._coming[-1][0] < self._position:
            self._open.append((self._coming.pop(), new_checksum()))
        for (start, stop), checksum in self._open:
            checksum.update(window[max(start - begin, 0) : stop - begin])
            if stop <= self._position:
                self._parts[start, stop] = checksum.hexdigest()
        self._open = [(interval, checksum) for interval, checksum in self._open if interval[1] > self._position]

    @property
    def result(self) -> FileChecksums:
        """The checksums of what has passed; intervals that have not ended have none, but for empty ones."""
        empty = {interval: new_checksum().hexdigest() for interval in self._coming if interval[0] == interval[1]}
        return FileChecksums(self._whole.hexdigest(), {**self._parts, **empty})
