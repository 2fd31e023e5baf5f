"""Read byte ranges of many files in windows of bounded size, with few files open at a time."""

import mmap
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.block_alignment import Part
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import hashed, new_checksum
from internvl_bridge.storage.file_system import ByteSource, FileSystem
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.work.progress import Advance

_MOST_OPEN = 32
WINDOW = 1 << 21
"""Bytes that are held at a time of each side of a comparison."""


class FileReader:
    """Keeps the last few files open while ranges of them are being read; closes them at the end of its ``with``.

    The files lie in ``file_system``. What it reads of those in ``forgets`` does not stay in a cache. For one thread.
    """

    def __init__(self, file_system: FileSystem = LOCAL, *, forgets: Collection[Path] = ()) -> None:
        self.file_system = file_system
        self._forgets = forgets
        self._open: dict[Path, ByteSource] = {}
        self._spare: list[mmap.mmap] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; later readings open them again."""
        for source in self._open.values():
            source.close()
        self._open.clear()
        self._spare.clear()

    def source(self, path: Path) -> ByteSource:
        """The open file ``path``, valid until some other files have been asked for."""
        source = self._open.pop(path, None) or self.file_system.open(path)
        self._open[path] = source  # the most recent one is the last
        if len(self._open) > _MOST_OPEN:
            self._open.pop(next(iter(self._open))).close()
        return source

    def windows(self, parts: Iterable[Part], buffers: int = 1) -> Iterator[memoryview]:
        """The bytes of ``parts`` one after the other, in windows of WINDOW bytes (the last shorter).

        Every window lies at the start of a page of memory. It is valid until ``buffers`` more have been asked for,
        because buffers are used again. New memory for every window would take longer than reading.
        """
        ring = [self._spare.pop() if self._spare else mmap.mmap(-1, WINDOW) for _ in range(buffers)]
        try:
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
                            raise ended(part)
                    done += step
                    filled += step
                    if filled == WINDOW:
                        yield view
                        number += 1
                        view, filled = memoryview(ring[number % buffers]), 0
            if filled:
                yield view[:filled]
        finally:
            self._spare += ring

    def _read(self, path: Path, offset: int, room: memoryview) -> int:
        source = self.source(path)
        done = source.read_into(room, offset)
        if path in self._forgets:
            source.forget(offset, done)
        return done


def file_checksum(path: Path, readers: FileReader, advance: Advance) -> str:
    """The checksum of the file ``path``, of any size. Raises OSError, naming it, if it cannot be read."""
    checksum = new_checksum()
    for window in hashed(readers.windows([ByteRange(path, 0, readers.file_system.stamp(path).size)]), checksum):
        advance(len(window))
    return checksum.hexdigest()


def ended(part: ByteRange) -> CheckpointError:
    """The refusal of a file that has fewer bytes than its header said."""
    return CheckpointError(
        f"{part.path} ended before byte {part.offset + part.length}: it was changed while it was being read.",
        "Try again when nothing else writes to it.",
    )
