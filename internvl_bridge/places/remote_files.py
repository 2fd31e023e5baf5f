"""Read ranges of files that are elsewhere, as those of this machine are read."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.places.hub import Repository, read_range
from internvl_bridge.storage.file_system import ByteSink
from internvl_bridge.storage.stamps import Stamp

_AT_A_TIME = 1 << 23
"""Bytes that are asked for at once. A request takes some tenths of a second, however little it brings; but up to 32
files are open at a time, and each holds so much."""


@dataclass(frozen=True, slots=True)
class RemoteFiles:
    """The files of a repository, a file system to read from. A path is that of a file by its last part."""

    repository: Repository

    def stamp(self, path: Path) -> Stamp:
        return Stamp(self.repository.files[path.name], 0)

    def open(self, path: Path) -> "RemoteSource":
        return RemoteSource(self.repository, path.name)

    def create(self, path: Path) -> AbstractContextManager[ByteSink]:
        raise NotImplementedError(f"{path}: a repository is written by commits")


class RemoteSource:
    """A file of a repository, open for reading: it holds what was asked for last."""

    __slots__ = ("_data", "_file", "_repository", "_start")

    def __init__(self, repository: Repository, file: str) -> None:
        self._repository, self._file = repository, file
        self._start, self._data = 0, b""

    def read_into(self, window: memoryview, offset: int) -> int:
        size = self._repository.files[self._file]
        if not self._start <= offset < self._start + len(self._data):
            if offset >= size:
                return 0
            stop = min(offset + max(len(window), _AT_A_TIME), size)
            self._start, self._data = offset, read_range(self._repository, self._file, offset, stop)
        found = memoryview(self._data)[offset - self._start :][: len(window)]
        window[: len(found)] = found
        return len(found)

    def forget(self, offset: int, length: int) -> None:
        """Nothing: what is read next takes the place of it."""

    def close(self) -> None:
        self._data = b""
