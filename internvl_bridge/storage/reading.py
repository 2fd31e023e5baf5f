"""Read byte ranges of many files, each opened once, in windows of bounded size."""

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

    def windows(self, pieces: Iterable[Piece]) -> Iterator[bytes]:
        """The bytes of ``pieces`` one after the other, in windows of WINDOW bytes (the last shorter)."""
        held: list[bytes] = []
        room = WINDOW
        for piece in pieces:
            done = 0
            while done < piece.length:
                data = os.pread(self.fileno(piece.path), min(room, piece.length - done), piece.offset + done)
                if not data:
                    raise CheckpointError(
                        f"{piece.path} ended before byte {piece.offset + piece.length}: it was changed "
                        f"while it was being read.",
                        "Try again when nothing else writes to it.",
                    )
                held.append(data)
                done += len(data)
                room -= len(data)
                if room == 0:
                    yield held[0] if len(held) == 1 else b"".join(held)
                    held, room = [], WINDOW
        if held:
            yield b"".join(held)
