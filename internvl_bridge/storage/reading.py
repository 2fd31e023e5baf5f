"""Read byte ranges of many files, each opened once, in windows of bounded size."""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.checkpoint import Piece

WINDOW = 1 << 20
"""Bytes that are held at a time of each side of a comparison."""


class FileReader:
    """Keeps files open while ranges of them are being read; close it by leaving its ``with``."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[Path, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def fileno(self, path: Path) -> int:
        if path not in self._open:
            file = self._stack.enter_context(path.open("rb", buffering=0))
            self._open[path] = file.fileno()
        return self._open[path]

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
