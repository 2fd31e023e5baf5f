"""Write the weights of an output, read them back and compare them with the source, several files at a time."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path

from internvl_bridge.checkpoint.byte_ranges import target_tensor
from internvl_bridge.errors import CheckpointError, DifferenceError
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.storage.checksums import hashed, new_checksum
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.copying import write_file
from internvl_bridge.storage.header import DTYPE_BITS, Header, read_header
from internvl_bridge.storage.output_shards import FileJob, coalesced
from internvl_bridge.storage.publishing import Workspace
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import ByteRange, Checkpoint, StoredTensor
from internvl_bridge.verification.tensors import Pair
from internvl_bridge.work.progress import Advance, Progress
from internvl_bridge.work.workers import in_parallel

DAMAGED = (
    "The disk or the memory of this machine may be failing, or another program changed the source meanwhile: check "
    "both, then convert again."
)


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """A file of weights that is complete: bytes that it shares with the source, and its checksum.

    ``kept``: an earlier run wrote it. ``checksum`` is None if no pass has seen all of its bytes: it shares some of
    them with the source, and was not read back.
    """

    name: str
    cloned: int
    checksum: str | None
    kept: bool


@dataclass(frozen=True, slots=True)
class WeightSource:
    """What shards are made from: a proved plan and the checkpoint it starts from.

    What is read of the files ``uncached`` for the last time does not stay in the page cache.
    """

    plan: Plan
    source: Checkpoint
    uncached: frozenset[Path]


def write_shards(
    jobs: Sequence[FileJob],
    weights: WeightSource,
    workspace: Workspace,
    workers: int,
    progress: Progress,
    *,
    verify: bool,
) -> list[WrittenShard]:
    """Make every file of ``jobs`` in ``workspace``; each is written down there as soon as it is finished.

    With ``verify``, each is read back from the disk and compared with the source as soon as it is written, while
    memory still holds what was read. Files that an earlier run has finished are always compared, and made again if
    they differ. Raises DifferenceError if what was written is not what was read.
    """
    passes = 2 if verify else 1
    advance = progress("Converting and verifying" if verify else "Converting", passes * sum(job.size for job in jobs))
    kept = frozenset(workspace.journal.finished)
    work = partial(_make, weights=weights, workspace=workspace, kept=kept, verify=verify)
    return in_parallel(work, jobs, workers, advance)


def _make(
    job: FileJob, advance: Advance, *, weights: WeightSource, workspace: Workspace, kept: frozenset[str], verify: bool
) -> WrittenShard:
    path = workspace.files / job.name
    if job.name in kept:
        try:
            checksum: str | None = read_back(path, job, weights, advance)
        except (DifferenceError, OSError) as error:  # a crash of the machine can lose what was said to be on the disk
            if isinstance(error, OSError) and error.filename != str(path):
                raise
            workspace.journal.forget(job.name)
            path.unlink(missing_ok=True)
        else:
            advance(job.size if verify else 0)
            return WrittenShard(job.name, 0, checksum, kept=True)
    with FileReader(forgets=() if verify else weights.uncached) as readers:
        written = write_file(workspace.files, job, readers, advance)
    checksum = read_back(path, job, weights, advance) if verify else written.checksum
    workspace.journal.record(job.name)
    return WrittenShard(job.name, written.cloned, checksum, kept=False)


def read_back(path: Path, job: FileJob, weights: WeightSource, advance: Advance) -> str:
    """Compare the file ``path`` with what ``job`` should have made, to the last bit; its checksum.

    What each tensor should be comes from the plan, and where it is from the header on the disk, so that a mistake in
    the layout of the file is found, too. Raises DifferenceError if anything differs.
    """
    try:
        header = read_header(path)
    except CheckpointError as error:
        raise DifferenceError(f"What was written is not what was planned: {error.reason}", DAMAGED) from error
    if wrong := {*header.entries} ^ {*job.keys}:
        raise DifferenceError(f"{path} has not the tensors that were planned: {min(wrong)}.", DAMAGED)
    pairs = [_pair(path, key, header, weights) for key in header.entries]
    expected = coalesced(byte_range for pair in pairs for byte_range in pair.expected.ranges)
    checksum = new_checksum()
    with FileReader(forgets=weights.uncached) as ours, FileReader(forgets={path}) as theirs:
        left = ours.windows([job.header, *expected])
        right = hashed(theirs.windows([ByteRange(path, 0, path.stat().st_size)], buffers=2), checksum)
        offset = first_difference(left, right, advance)
    if offset is None:
        return checksum.hexdigest()
    raise DifferenceError(f"What was written to {path} is not what was read: {_where(offset, job, pairs)}.", DAMAGED)


def _where(offset: int, job: FileJob, pairs: Sequence[Pair]) -> str:
    """What differs if the byte at ``offset`` of the file does; ``pairs`` are in the order of the file."""
    ends = [*accumulate((pair.expected.length for pair in pairs), initial=len(job.header))]
    number = bisect_right(ends, offset)
    if not 0 < number < len(ends):
        return f"byte {offset} differs"
    pair = pairs[number - 1]
    element = (offset - ends[number - 1]) * 8 // DTYPE_BITS[pair.expected.dtype]
    return f"{pair.key} differs from element {element} on"


def _pair(path: Path, key: str, header: Header, weights: WeightSource) -> Pair:
    """The tensor ``key`` as it should be, and as the file ``path`` with this ``header`` has it."""
    entry, expected = header.entries[key], target_tensor(weights.plan.recipes[key], weights.source)
    if (entry.dtype, entry.shape) != (expected.dtype, expected.shape):
        raise DifferenceError(f"{path} has {key} in another dtype or shape than was planned.", DAMAGED)
    data = ByteRange(path, header.data_start + entry.start, entry.stop - entry.start)
    return Pair(key, expected, StoredTensor(entry.dtype, entry.shape, 0, data))
