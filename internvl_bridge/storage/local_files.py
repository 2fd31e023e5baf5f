"""Local files behind the interface of :mod:`internvl_bridge.storage.file_system`, in the fastest ways there are.

What the file system can share with the source is shared. The rest is written past the page cache where that can be
done. Both are skipped work: without them the same bytes are written one after the other.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import named
from internvl_bridge.storage.block_alignment import BLOCK, FileSegment
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.cloning import clone_range
from internvl_bridge.storage.direct_io import is_direct, is_refusal, use_direct_io, use_page_cache
from internvl_bridge.storage.file_system import ByteSource
from internvl_bridge.storage.free_space import allocate
from internvl_bridge.storage.held_directory import HeldDirectory
from internvl_bridge.storage.permissions import OWNER_FILE, allow_owner
from internvl_bridge.storage.stamps import Stamp, stamp_from, stamp_of
from internvl_bridge.work.progress import Advance

_CLONE_STEP = 1 << 30
_MOST_UNWRITTEN = 1 << 26
"""Bytes that may wait in the page cache where it cannot be bypassed."""
_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class LocalFiles:
    """The files of this machine.

    ``clone`` and ``direct`` are the faster ways of writing that may be tried: sharing blocks with the source, and
    bypassing the page cache. All of them make the same file: tests do without some to show it. With ``directory`` all
    files are those in it, wherever their paths lead. ``mode`` is what new files get at most; their owner may always
    read and write.
    """

    clone: bool = True
    direct: bool = True
    directory: HeldDirectory | None = None
    mode: int = 0o666

    def stamp(self, path: Path) -> Stamp:
        return stamp_of(path) if self.directory is None else stamp_from(self.directory.status(path.name))

    def open(self, path: Path) -> "LocalSource":
        return LocalSource(path, self._opened(path, os.O_RDONLY))

    @contextmanager
    def create(self, path: Path) -> Iterator["LocalSink"]:
        file = self._opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            with named(path):
                allow_owner(file, OWNER_FILE)
                yield LocalSink(path, file, self)
        finally:
            os.close(file)

    def _opened(self, path: Path, flags: int) -> int:
        if self.directory is None:
            return os.open(path, flags, self.mode)
        return self.directory.open(path.name, flags, self.mode)


LOCAL = LocalFiles()


class LocalSource:
    """A local file, open for reading."""

    __slots__ = ("_file", "_path")

    def __init__(self, path: Path, file: int) -> None:
        with named(path):
            self._path, self._file = path, os.fdopen(file, "rb", buffering=0)

    def fileno(self) -> int:
        """Its descriptor."""
        return self._file.fileno()

    def read_into(self, window: memoryview, offset: int) -> int:
        with named(self._path):
            return os.preadv(self._file.fileno(), [window], offset)

    def forget(self, offset: int, length: int) -> None:
        forget(self._file.fileno(), offset, length)

    def close(self) -> None:
        self._file.close()


class LocalSink:
    """A local file that is being written."""

    __slots__ = ("_file", "_files", "_path")

    def __init__(self, path: Path, file: int, files: LocalFiles) -> None:
        self._path, self._file, self._files = path, file, files

    def begin(
        self, segments: Sequence[FileSegment], open_source: Callable[[Path], ByteSource], advance: Advance
    ) -> Collection[FileSegment]:
        cloned = _clone(self._file, segments, open_source, advance) if self._files.clone else set()
        if not cloned:
            allocate(self._file, sum(segment.length for segment in segments))
        if self._files.direct:
            use_direct_io(self._file)
        return cloned

    def write(self, window: memoryview, offset: int) -> int:
        if len(window) % BLOCK:
            use_page_cache(self._file)
        done = 0
        while done < len(window):
            direct = is_direct(self._file)
            try:
                done += os.pwrite(self._file, window[done:], offset + done)
            except OSError as error:
                if not (direct and is_refusal(error)):
                    raise
                use_page_cache(self._file)
        if not is_direct(self._file) and (offset + done) // _MOST_UNWRITTEN > offset // _MOST_UNWRITTEN:
            os.fsync(self._file)
            forget(self._file)
        return done

    def finish(self) -> None:
        os.fsync(self._file)
        if not is_direct(self._file):
            forget(self._file)


def _clone(
    file: int, segments: Iterable[FileSegment], open_source: Callable[[Path], ByteSource], advance: Advance
) -> set[FileSegment]:
    """Share what can be shared; those segments. A source file that cannot be shared is asked once."""
    cloned: set[FileSegment] = set()
    refused: set[Path] = set()
    for segment in segments:
        part = segment.part
        if not segment.shareable or isinstance(part, bytes) or part.path in refused:
            continue
        source = open_source(part.path)
        if isinstance(source, LocalSource) and _clone_range(source, part, file, segment.offset, advance):
            cloned.add(segment)
        else:
            refused.add(part.path)
    return cloned


def _clone_range(source: LocalSource, part: ByteRange, file: int, offset: int, advance: Advance) -> bool:
    """Share ``part``, in steps between which an interrupt is heard; False if the file system cannot."""
    for done in range(0, part.length, _CLONE_STEP):
        step = min(_CLONE_STEP, part.length - done)
        if not clone_range(source.fileno(), part.offset + done, step, file, offset + done):
            advance(-done)
            return False
        advance(step)
    return True


def uncached(paths: Iterable[Path]) -> frozenset[Path]:
    """Those of ``paths`` of which the page cache holds little: to be asked before they are read.

    Of the others, what is read may stay there: somebody else uses it. Where the system does not report it, nothing
    is taken out of the cache.
    """
    return frozenset(path for path in paths if _is_uncached(path))


def forget(file: int, offset: int = 0, length: int = 0) -> None:
    """Drop the cached pages of a range of ``file``, or of all of it, if they are on the disk."""
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
