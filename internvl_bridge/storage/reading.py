"""Read byte ranges of many files in windows of bounded size, with few files open at a time."""

import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.directly import directly, indirectly, is_refusal
from internvl_bridge.storage.stretches import Part

_MOST_OPEN = 32
WINDOW = 1 << 21
"""Bytes that are held at a time of each side of a comparison."""


class FileReader:
    """Keeps the last few files open while ranges of them are being read; closes them at the end of its ``with``.

    ``past_cache``: read from the disk itself where the file system can, and leave nothing of the files in memory.
    For one thread.
    """

    def __init__(self, *, past_cache: bool = False) -> None:
        self._past_cache = past_cache
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
            if self._past_cache:
                directly(file.fileno())
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
        try:
            return os.preadv(file, [room], offset)
        except OSError as error:
            if is_refusal(error) and indirectly(file):
                return os.preadv(file, [room], offset)
            error.filename = error.filename or str(path)
            raise


def _ended(path: Path, stop: int) -> CheckpointError:
    return CheckpointError(
        f"{path} ended before byte {stop}: it was changed while it was being read.",
        "Try again when nothing else writes to it.",
    )
