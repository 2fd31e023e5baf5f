"""Read byte ranges of many files in windows of bounded size, with few files open at a time."""

import mmap
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from internvl_bridge.errors import CheckpointError, named
from internvl_bridge.storage.block_alignment import Part
from internvl_bridge.storage.checksums import hashed, new_checksum
from internvl_bridge.storage.source_shards import ByteRange
from internvl_bridge.work.progress import Advance

_MOST_OPEN = 32
_SAMPLES = 16
WINDOW = 1 << 21
"""Bytes that are held at a time of each side of a comparison."""


class FileReader:
    """Keeps the last few files open while ranges of them are being read; closes them at the end of its ``with``.

    What it reads of the files ``forgets`` does not stay in the page cache. For one thread.
    """

    def __init__(self, *, forgets: Collection[Path] = ()) -> None:
        self._forgets = forgets
        self._open: dict[Path, BinaryIO] = {}
        self._spare: list[mmap.mmap] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()
        self._spare.clear()

    def fileno(self, path: Path) -> int:
        """The descriptor of ``path``, valid until some other files have been asked for."""
        file = self._open.pop(path, None)
        if file is None:
            file = path.open("rb", buffering=0)
        self._open[path] = file  # the most recent one is the last
        if len(self._open) > _MOST_OPEN:
            self._open.pop(next(iter(self._open))).close()
        return file.fileno()

    def windows(self, parts: Iterable[Part], buffers: int = 1) -> Iterator[memoryview]:
        """The bytes of ``parts`` one after the other, in windows of WINDOW bytes (the last shorter).

        Every window lies at the start of a page of memory, and is valid until ``buffers`` more have been asked for:
        buffers are used again, as new memory for every window would take longer than reading.
        """
        ring = [self._spare.pop() if self._spare else mmap.mmap(-1, WINDOW) for _ in range(buffers)]
        number = filled = 0
        view = memoryview(ring[0])
        for part in parts:
            done, length = 0, len(part) if isinstance(part, bytes) else part.length
            while done < length:
                step = min(length - done, WINDOW - filled)
                room = view[filled : filled + step]
                if isinstance(part, bytes):
                    room[:] = part[done : done + step]
                else:
                    step = self._read(part.path, part.offset + done, room)
                    if not step:
                        raise _ended(part.path, part.offset + part.length)
                done += step
                filled += step
                if filled == WINDOW:
                    yield view
                    number += 1
                    view, filled = memoryview(ring[number % buffers]), 0
        if filled:
            yield view[:filled]
        self._spare += ring

    def _read(self, path: Path, offset: int, room: memoryview) -> int:
        file = self.fileno(path)
        with named(path):
            done = os.preadv(file, [room], offset)
        if path in self._forgets:
            forget(file, offset, done)
        return done


def uncached(paths: Iterable[Path]) -> frozenset[Path]:
    """Those of ``paths`` of which the page cache holds little: to be asked before they are read.

    Of the others, what is read may stay there: somebody else had a use for it. Where the system does not tell, nothing
    is taken out of the cache.
    """
    return frozenset(path for path in paths if _is_uncached(path))


def file_checksum(path: Path, readers: FileReader, advance: Advance) -> str:
    """The checksum of the file ``path``, of any size. Raises OSError, naming it, if it cannot be read."""
    checksum = new_checksum()
    for window in hashed(readers.windows([ByteRange(path, 0, path.stat().st_size)]), checksum):
        advance(len(window))
    return checksum.hexdigest()


def forget(file: int, offset: int = 0, length: int = 0) -> None:
    """Drop what the page cache holds of a range of ``file``, or of all of it, if it is on the disk."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with suppress(OSError):
            os.posix_fadvise(file, offset, length, os.POSIX_FADV_DONTNEED)


def _is_uncached(path: Path) -> bool:
    found = 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        for number in range(_SAMPLES):
            try:
                found += os.preadv(file.fileno(), [bytearray(1)], size * number // _SAMPLES, os.RWF_NOWAIT)
            except BlockingIOError:  # it would have to be read from the disk
                continue
            except (OSError, AttributeError):  # not on this file system; not on macOS
                return False
    return found < _SAMPLES // 2


def _ended(path: Path, stop: int) -> CheckpointError:
    return CheckpointError(
        f"{path} ended before byte {stop}: it was changed while it was being read.",
        "Try again when nothing else writes to it.",
    )
