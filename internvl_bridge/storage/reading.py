"""Read byte ranges of many files in windows of bounded size, with few files open at a time."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.checkpoint import Piece

_MOST_OPEN = 32
WINDOW = 1 << 20
"""Bytes that are held at a time of each side of a comparison."""


class FileReader:
    """Keeps the last few files open while ranges of them are being read; closes them at the end of its ``with``."""

    def __init__(self) -> None:
        self._open: dict[Path, BinaryIO] = {}
        self._buffers: list[bytearray] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open.values():
            file.close()
        self._open.clear()

    def fileno(self, path: Path) -> int:
        """The descriptor of ``path``, valid until some other files have been asked for."""
        file = self._open.pop(path, None) or path.open("rb", buffering=0)
        self._open[path] = file  # the most recent one is the last
        if len(self._open) > _MOST_OPEN:
            self._open.pop(next(iter(self._open))).close()
        return file.fileno()

    def windows(self, pieces: Iterable[Piece]) -> Iterator[bytearray]:
        """The bytes of ``pieces`` one after the other, in windows of WINDOW bytes (the last shorter).

        A window is valid until the next one: buffers are used again, as new memory for every window would
        take longer than reading.
        """
        buffer = self._buffers.pop() if self._buffers else bytearray(WINDOW)
        view, filled = memoryview(buffer), 0
        for piece in pieces:
            done = 0
            while done < piece.length:
                room = view[filled : filled + piece.length - done]
                read = os.preadv(self.fileno(piece.path), [room], piece.offset + done)
                if not read:
                    raise CheckpointError(
                        f"{piece.path} ended before byte {piece.offset + piece.length}: it was changed "
                        f"while it was being read.",
                        "Try again when nothing else writes to it.",
                    )
                done += read
                filled += read
                if filled == WINDOW:
                    yield buffer
                    filled = 0
        if filled:
            yield buffer[:filled]
        self._buffers.append(buffer)
