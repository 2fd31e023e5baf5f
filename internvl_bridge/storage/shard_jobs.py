"""Carry out one shard job: write the file, read it back, compare it with its source."""

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from internvl_bridge.errors import CheckpointError, DifferenceError
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import FileChecksums, Interval, PassingChecksums, hashed
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.copying import write_file
from internvl_bridge.storage.file_system import FileSystem
from internvl_bridge.storage.header import DTYPE_BITS, parse_start
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.stamps import Stamp
from internvl_bridge.work.progress import Advance, nothing

DAMAGED = (
    "The disk or the memory of this machine may be failing, or another program changed the source meanwhile: check "
    "both, then convert again."
)


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One file of an output: where it goes, its first bytes, and the byte ranges of the source behind them.

    It is small and picklable, and stands alone: a thread, another process or another machine that sees the same files
    carries it out with :func:`write_and_check`. ``verify``: read the file back and compare it. ``once``: the source is
    read once only. Then what is read back is compared by its checksum. What is read for the last
    time of the files ``uncached`` does not stay in the page cache. Checksums are taken of the whole file, and of
    ``intervals`` of it. ``crcs`` are places in it, the CRC-32 that the source states for what is there, and where that
    is in the source: it is refused if it has another one.
    """

    path: Path
    header: bytes
    ranges: tuple[ByteRange, ...]
    verify: bool = True
    once: bool = False
    uncached: frozenset[Path] = frozenset()
    intervals: tuple[Interval, ...] = ()
    crcs: tuple[tuple[Interval, int, ByteRange], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(byte_range.length for byte_range in self.ranges)

    @property
    def work(self) -> int:
        """Bytes that pass while it is carried out: what its progress adds up to."""
        return 2 * self.size if self.verify else self.size


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A file of weights that is complete: bytes that it shares with the source, and its checksums.

    ``kept``: an earlier run wrote it. ``checksums`` is None if no pass has seen all of its bytes: it shares some of
    them with the source, and was not read back. ``stamp`` is what it was before it was read back. ``leads_to``: it is
    a link to that file.
    """

    name: str
    cloned: int
    checksums: FileChecksums | None
    stamp: Stamp
    kept: bool = False
    leads_to: Path | None = None


def write_and_check(
    job: ShardJob, advance: Advance = nothing, *, source: FileSystem = LOCAL, target: FileSystem = LOCAL
) -> WrittenShard:
    """Write the file of ``job``, make it durable, and read it back if the job asks for that.

    The ranges are read from the file system ``source``, the file is created in ``target``. ``advance`` is called with
    numbers of bytes, which add up to ``job.work``; what it raises ends the work.

    Raises CheckpointError if a source file turns out shorter than its header said. Raises OSError, naming the file, if
    a disk refuses. Raises DifferenceError if what was written is not what was read.
    """
    with FileReader(source, forgets=() if job.verify else job.uncached) as reader:
        passing = None if job.verify and not job.once else _checksums(job)  # what is read back is seen then
        written = write_file(job.path, (job.header, job.ranges), reader, advance, target, passing)
    stamp = target.stamp(job.path)
    if job.verify and job.once:
        passed = None if written.checksums is None else written.checksums.whole
        return WrittenShard(job.path.name, 0, check_by_checksum(job, passed, advance, target), stamp)
    if job.verify:
        return WrittenShard(job.path.name, written.cloned, check(job, advance, source=source, target=target), stamp)
    if written.checksums is not None:
        _check_crcs(job, written.checksums)
    return WrittenShard(job.path.name, written.cloned, written.checksums, stamp)


def check(
    job: ShardJob, advance: Advance = nothing, *, source: FileSystem = LOCAL, target: FileSystem = LOCAL
) -> FileChecksums:
    """Compare the file of ``job`` with what it should be, to the last bit; its checksums.

    Raises DifferenceError, naming the tensor and the element, if anything differs. Raises CheckpointError if a source
    file is shorter than its header said. Raises OSError if the file cannot be read.
    """
    try:
        whole = ByteRange(job.path, 0, target.stamp(job.path).size)
    except FileNotFoundError as error:
        raise DifferenceError(f"{job.path} was written, and is not there any more.", DAMAGED) from error
    checksum = _checksums(job)
    with FileReader(source, forgets=job.uncached) as ours, FileReader(target, forgets={job.path}) as theirs:
        left = ours.windows([job.header, *job.ranges])
        right = hashed(theirs.windows([whole], buffers=2), checksum)
        offset = first_difference(left, right, advance)
    if offset is None:
        _check_crcs(job, checksum.result)
        return checksum.result
    raise DifferenceError(f"What was written to {job.path} is not what was read: {_where(offset, job)}.", DAMAGED)


def check_by_checksum(
    job: ShardJob, expected: str | None, advance: Advance = nothing, target: FileSystem = LOCAL
) -> FileChecksums:
    """Read the file of ``job`` and compare its checksum with the ``expected`` one; its checksums.

    Raises DifferenceError if they differ, and OSError if the file cannot be read.
    """
    checksum = _checksums(job)
    with FileReader(target, forgets={job.path}) as reader:
        for window in hashed(reader.windows([ByteRange(job.path, 0, target.stamp(job.path).size)]), checksum):
            advance(len(window))
    if checksum.result.whole != expected:
        raise DifferenceError(f"What was written to {job.path} is not what was read.", DAMAGED)
    return checksum.result


def _checksums(job: ShardJob) -> PassingChecksums:
    return PassingChecksums(job.intervals, (place for place, _, _ in job.crcs))


def _check_crcs(job: ShardJob, found: FileChecksums) -> None:
    """Raise CheckpointError if what was read is not what the source's own checksums say."""
    for place, crc, origin in job.crcs:
        if found.crcs.get(place) != crc:
            raise wrong_crc(origin)


def wrong_crc(origin: ByteRange) -> CheckpointError:
    """The refusal of a file whose bytes ``origin`` do not have the CRC-32 that it states."""
    return CheckpointError(
        f"{origin.path} is damaged: its {origin.length} bytes from {origin.offset} on do not have the CRC that "
        f"the file states.",
        "Get the file again, or add --accept checksums to use what is there.",
    )


def _where(offset: int, job: ShardJob) -> str:
    """What differs if the byte at ``offset`` of the file does."""
    entries = parse_start(job.path, job.header, job.size).entries
    ends = [*accumulate((entry.stop - entry.start for entry in entries.values()), initial=len(job.header))]
    number = bisect_right(ends, offset)
    if not 0 < number < len(ends):
        return f"byte {offset} differs"
    key, entry = [*entries.items()][number - 1]
    element = (offset - ends[number - 1]) * 8 // DTYPE_BITS[entry.dtype]
    return f"{key} differs from element {element} on"
