"""Checksums of files, taken as their bytes pass."""

from collections.abc import Iterable, Iterator

import xxhash

ALGORITHM = "xxh3_128"
"""A checksum that finds damage and mistakes at the speed of memory. It does not protect against forgers."""


def new_checksum() -> xxhash.xxh3_128:
    """An empty checksum, to be updated."""
    return xxhash.xxh3_128()


def checksum_of(pieces: Iterable[bytes]) -> str:
    """The checksum of all ``pieces`` together, in hexadecimal digits."""
    checksum = new_checksum()
    for piece in pieces:
        checksum.update(piece)
    return checksum.hexdigest()


def hashed(windows: Iterable[memoryview], checksum: xxhash.xxh3_128) -> Iterator[memoryview]:
    """``windows`` as they are, each added to ``checksum`` as it passes."""
    for window in windows:
        checksum.update(window)
        yield window
