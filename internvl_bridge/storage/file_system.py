"""Where bytes come from and where they go: what reading and writing need of a file system, local or not.

:mod:`internvl_bridge.storage.local_files` is the implementation for local files. Another one (HTTP ranges, an object
store) implements the same three protocols; then reading ranges and writing shards need not change.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from internvl_bridge.storage.block_alignment import FileSegment
from internvl_bridge.storage.stamps import Stamp
from internvl_bridge.work.progress import Advance


class ByteSource(Protocol):
    """An open file of which ranges are read. For one thread at a time."""

    def read_into(self, window: memoryview, offset: int) -> int:
        """Fill ``window`` with the bytes from ``offset`` on; how many there were, 0 at the end of the file."""

    def forget(self, offset: int, length: int) -> None:
        """Say that nobody needs this range again, so that no cache need keep it. May do nothing."""

    def close(self) -> None:
        """Give back what the open file takes."""


class ByteSink(Protocol):
    """A new file that is being written: begun once, then written in any order and by several threads, then finished."""

    def begin(
        self, segments: Sequence[FileSegment], open_source: Callable[[Path], ByteSource], advance: Advance
    ) -> Collection[FileSegment]:
        """Prepare for a file that consists of ``segments``; those of them that need not be written any more.

        A file system that can let two files share their blocks may share some with their sources, which
        ``open_source`` opens; ``advance`` is called with their bytes. Any other returns none.
        """

    def write(self, window: memoryview, offset: int) -> int:
        """Write all of ``window`` from ``offset`` on; its length."""

    def finish(self) -> None:
        """Make the file durable: when this returns, it survives a loss of power."""


class FileSystem(Protocol):
    """A place where files lie. Immutable and picklable: a worker elsewhere gets it with its job."""

    def stamp(self, path: Path) -> Stamp:
        """Size and identity of a file as it is now: another stamp means another file."""

    def open(self, path: Path) -> ByteSource:
        """Open a file for reading."""

    def create(self, path: Path) -> AbstractContextManager[ByteSink]:
        """Create a file that does not exist yet; at the end of the ``with`` it is closed."""
