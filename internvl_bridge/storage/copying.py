"""Write one file from a header and byte ranges of other files, in bounded memory.

The bytes pass through a few buffers: while one is written the next one is read. What the file system can share with
the source is never read.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.storage.block_alignment import FileSegment, Part, file_segments
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import FileChecksums, PassingChecksums, hashed
from internvl_bridge.storage.file_system import ByteSink, FileSystem
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.work.progress import Advance

_BUFFERS = 4
_WRITERS = 2
"""Writes that are under way at a time: a disk is faster if it need not wait for the next one."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file that was written: how many of its bytes are shared with the source, and its checksums.

    ``checksums`` is None if any are, as those bytes were never seen, and if none were asked for.
    """

    cloned: int
    checksums: FileChecksums | None


def write_file(
    path: Path,
    contents: tuple[bytes, Iterable[ByteRange]],
    reader: FileReader,
    advance: Advance,
    files: FileSystem = LOCAL,
    checksums: PassingChecksums | None = None,
) -> WrittenFile:
    """Create ``path`` in ``files``, of ``contents``: a header and the ranges behind it. Make it durable.

    ``checksums`` are taken of what is copied.

    Raises CheckpointError if a source file turns out shorter than its header said. Raises OSError, naming the file, if
    the disk refuses.
    """
    segments = list(file_segments(*contents))
    with files.create(path) as sink:
        shared = sink.begin(segments, reader.source, advance)
        for offset, parts in _gaps(segments, shared):
            windows = reader.windows(parts, _BUFFERS)
            _write_behind(sink, offset, windows if checksums is None else hashed(windows, checksums), advance)
        sink.finish()
    return WrittenFile(
        sum(segment.length for segment in shared), None if shared or checksums is None else checksums.result
    )


def _gaps(segments: Iterable[FileSegment], shared: Collection[FileSegment]) -> Iterator[tuple[int, list[Part]]]:
    """What lies between the shared segments: offset and parts."""
    offset, parts = 0, list[Part]()
    for segment in segments:
        if segment in shared:
            yield offset, parts
            offset, parts = segment.offset + segment.length, []
        else:
            parts.append(segment.part)
    yield offset, parts


def _write_behind(sink: ByteSink, offset: int, windows: Iterable[memoryview], advance: Advance) -> None:
    """Write ``windows`` from ``offset`` on in threads of their own, while the next ones are being filled."""
    pending: deque[Future[int]] = deque()
    with ThreadPoolExecutor(_WRITERS) as writers:
        for window in windows:
            pending.append(writers.submit(sink.write, window, offset))
            offset += len(window)
            if len(pending) == _BUFFERS:  # the next window is filled into the oldest one's buffer
                advance(pending.popleft().result())
        for write in pending:
            advance(write.result())
