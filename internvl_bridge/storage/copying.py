"""Write one file from a header and byte ranges of other files, in bounded memory.

What the file system can share with the source is shared; the rest passes through a few buffers, is written past the
page cache where that can be done, and while one buffer is written the next one is read. Each of these is skipped
work: without any of them the same bytes are written one after the other.
"""

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import named
from internvl_bridge.storage.block_alignment import BLOCK, FileSegment, Part, file_segments
from internvl_bridge.storage.checksums import hashed, new_checksum
from internvl_bridge.storage.cloning import clone_range
from internvl_bridge.storage.direct_io import is_direct, is_refusal, use_direct_io, use_page_cache
from internvl_bridge.storage.free_space import allocate
from internvl_bridge.storage.output_shards import FileJob
from internvl_bridge.storage.reading import FileReader, forget
from internvl_bridge.storage.source_shards import ByteRange
from internvl_bridge.work.progress import Advance

_BUFFERS = 4
_WRITERS = 2
"""Writes that are under way at a time: a disk is faster if it need not wait for the next one."""
_CLONE_STEP = 1 << 30
_MOST_UNWRITTEN = 1 << 26
"""Bytes that may wait in the page cache where it cannot be bypassed."""


@dataclass(frozen=True, slots=True)
class FastPaths:
    """The faster ways of writing that may be tried: sharing blocks with the source, bypassing the page cache.

    All of them make the same file: tests do without some to show it.
    """

    clone: bool = True
    direct: bool = True


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written: how many of its bytes are shared with the source, and its checksum.

    ``checksum`` is None if any are: those bytes were never seen.
    """

    cloned: int
    checksum: str | None


def write_file(
    directory: Path, job: FileJob, readers: FileReader, advance: Advance, fast_paths: FastPaths | None = None
) -> Written:
    """Create ``directory / job.name`` and make it durable.

    Raises CheckpointError if a source file turns out shorter than its header said, and OSError, naming
    the file, if the disk refuses.
    """
    path = directory / job.name
    with named(path), path.open("xb", buffering=0) as file:
        written = _write(file.fileno(), job, readers, advance, fast_paths or FastPaths())
        os.fsync(file.fileno())
        if not is_direct(file.fileno()):
            forget(file.fileno())
    return written


def _write(file: int, job: FileJob, readers: FileReader, advance: Advance, fast_paths: FastPaths) -> Written:
    todo = list(file_segments(job.header, job.ranges))
    cloned = _clone(file, todo, readers, advance) if fast_paths.clone else set()
    if not cloned:
        allocate(file, job.size)
    if fast_paths.direct:
        use_direct_io(file)
    checksum = new_checksum()
    for offset, parts in _gaps(todo, cloned):
        _write_behind(file, offset, hashed(readers.windows(parts, _BUFFERS), checksum), advance)
    shared = sum(segment.length for segment in cloned)
    return Written(shared, None if cloned else checksum.hexdigest())


def _clone(file: int, todo: Iterable[FileSegment], readers: FileReader, advance: Advance) -> set[FileSegment]:
    """Share what can be shared; those stretches. A source file that cannot be shared is asked once."""
    cloned: set[FileSegment] = set()
    refused: set[Path] = set()
    for segment in todo:
        byte_range = segment.part
        if not segment.shareable or isinstance(byte_range, bytes) or byte_range.path in refused:
            continue
        if _clone_range_of(file, segment.offset, byte_range, readers, advance):
            cloned.add(segment)
        else:
            refused.add(byte_range.path)
    return cloned


def _clone_range_of(file: int, offset: int, byte_range: ByteRange, readers: FileReader, advance: Advance) -> bool:
    """Share ``byte_range``, in steps between which an interrupt is heard; False if the file system cannot."""
    for done in range(0, byte_range.length, _CLONE_STEP):
        step = min(_CLONE_STEP, byte_range.length - done)
        if not clone_range(readers.fileno(byte_range.path), byte_range.offset + done, step, file, offset + done):
            advance(-done)
            return False
        advance(step)
    return True


def _gaps(todo: Iterable[FileSegment], cloned: Collection[FileSegment]) -> Iterator[tuple[int, list[Part]]]:
    """What lies between the cloned stretches: offset and parts."""
    offset, parts = 0, list[Part]()
    for segment in todo:
        if segment in cloned:
            yield offset, parts
            offset, parts = segment.offset + segment.length, []
        else:
            parts.append(segment.part)
    yield offset, parts


def _write_behind(file: int, offset: int, windows: Iterable[memoryview], advance: Advance) -> None:
    """Write ``windows`` from ``offset`` on in threads of their own, while the next ones are being filled."""
    pending: deque[Future[int]] = deque()
    with ThreadPoolExecutor(_WRITERS) as writers:
        for window in windows:
            pending.append(writers.submit(_write_window, file, window, offset))
            offset += len(window)
            if len(pending) == _BUFFERS:  # the next window is filled into the oldest one's buffer
                advance(pending.popleft().result())
        for write in pending:
            advance(write.result())


def _write_window(file: int, window: memoryview, offset: int) -> int:
    if len(window) % BLOCK:
        use_page_cache(file)
    done = 0
    while done < len(window):
        direct = is_direct(file)
        try:
            done += os.pwrite(file, window[done:], offset + done)
        except OSError as error:
            if not (direct and is_refusal(error)):
                raise
            use_page_cache(file)
    if not is_direct(file) and (offset + done) // _MOST_UNWRITTEN > offset // _MOST_UNWRITTEN:
        os.fsync(file)
        forget(file)
    return done
