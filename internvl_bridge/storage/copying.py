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

from internvl_bridge.progress import Advance
from internvl_bridge.storage.checkpoint import Piece
from internvl_bridge.storage.checksums import new_checksum, seen
from internvl_bridge.storage.cloning import clone_range
from internvl_bridge.storage.directly import directly, indirectly, is_direct, is_refusal
from internvl_bridge.storage.layout import FileJob
from internvl_bridge.storage.naming import named
from internvl_bridge.storage.reading import FileReader, forget
from internvl_bridge.storage.room import allocate
from internvl_bridge.storage.stretches import BLOCK, Part, Stretch, stretches

_BUFFERS = 4
_WRITERS = 2
"""Writes that are under way at a time: a disk is faster if it need not wait for the next one."""
_CLONE_STEP = 1 << 30
_MOST_UNWRITTEN = 1 << 26
"""Bytes that may wait in the page cache where it cannot be bypassed."""


@dataclass(frozen=True, slots=True)
class Means:
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
    directory: Path, job: FileJob, readers: FileReader, advance: Advance, means: Means | None = None
) -> Written:
    """Create ``directory / job.name`` and make it durable.

    Raises CheckpointError if a source file turns out shorter than its header said, and OSError, naming
    the file, if the disk refuses.
    """
    path = directory / job.name
    with named(path), path.open("xb", buffering=0) as file:
        written = _write(file.fileno(), job, readers, advance, means or Means())
        os.fsync(file.fileno())
        if not is_direct(file.fileno()):
            forget(file.fileno())
    return written


def _write(file: int, job: FileJob, readers: FileReader, advance: Advance, means: Means) -> Written:
    todo = list(stretches(job.header, job.pieces))
    cloned = _clone(file, todo, readers, advance) if means.clone else set()
    if not cloned:
        allocate(file, job.size)
    if means.direct:
        directly(file)
    checksum = new_checksum()
    for offset, parts in _gaps(todo, cloned):
        _write_behind(file, offset, seen(readers.windows(parts, _BUFFERS), checksum), advance)
    shared = sum(stretch.length for stretch in cloned)
    return Written(shared, None if cloned else checksum.hexdigest())


def _clone(file: int, todo: Iterable[Stretch], readers: FileReader, advance: Advance) -> set[Stretch]:
    """Share what can be shared; those stretches. A source file that cannot be shared is asked once."""
    cloned: set[Stretch] = set()
    refused: set[Path] = set()
    for stretch in todo:
        piece = stretch.part
        if not stretch.shareable or isinstance(piece, bytes) or piece.path in refused:
            continue
        if _clone_piece(file, stretch.offset, piece, readers, advance):
            cloned.add(stretch)
        else:
            refused.add(piece.path)
    return cloned


def _clone_piece(file: int, offset: int, piece: Piece, readers: FileReader, advance: Advance) -> bool:
    """Share ``piece``, in steps between which an interrupt is heard; False if the file system cannot."""
    for done in range(0, piece.length, _CLONE_STEP):
        step = min(_CLONE_STEP, piece.length - done)
        if not clone_range(readers.fileno(piece.path), piece.offset + done, step, file, offset + done):
            advance(-done)
            return False
        advance(step)
    return True


def _gaps(todo: Iterable[Stretch], cloned: Collection[Stretch]) -> Iterator[tuple[int, list[Part]]]:
    """What lies between the cloned stretches: offset and parts."""
    offset, parts = 0, list[Part]()
    for stretch in todo:
        if stretch in cloned:
            yield offset, parts
            offset, parts = stretch.offset + stretch.length, []
        else:
            parts.append(stretch.part)
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
        indirectly(file)
    done = 0
    while done < len(window):
        direct = is_direct(file)
        try:
            done += os.pwrite(file, window[done:], offset + done)
        except OSError as error:
            if not (direct and is_refusal(error)):
                raise
            indirectly(file)
    if not is_direct(file) and (offset + done) // _MOST_UNWRITTEN > offset // _MOST_UNWRITTEN:
        os.fsync(file)
        forget(file)
    return done
