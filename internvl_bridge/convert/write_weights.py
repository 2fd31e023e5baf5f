"""Write the weights of an output: several files at a time, each in the journal as soon as it is finished."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import partial
from pathlib import Path

from internvl_bridge.convert.tensor_places import ShardPlaces
from internvl_bridge.errors import DifferenceError
from internvl_bridge.storage.file_system import FileSystem
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.shard_jobs import ShardJob, WrittenShard, check, check_by_checksum, write_and_check
from internvl_bridge.storage.workspace import Workspace
from internvl_bridge.work.log import LOG
from internvl_bridge.work.progress import Advance, Progress, Report
from internvl_bridge.work.workers import in_parallel


def shard_jobs(
    shards: Iterable[tuple[OutputShard, ShardPlaces]],
    directory: Path,
    uncached: Collection[Path],
    *,
    verify: bool,
    once: bool = False,
) -> list[ShardJob]:
    """The jobs that make ``shards`` in ``directory``, with checksums of the places in each.

    Of the source files ``uncached`` nothing stays in the cache. ``once``: each is read once only.
    """
    return [
        ShardJob(
            directory / shard.name,
            shard.header,
            shard.ranges,
            verify=verify,
            once=once,
            uncached=frozenset(byte_range.path for byte_range in shard.ranges).intersection(uncached),
            intervals=tuple(place.intervals),
            crcs=place.crcs,
        )
        for shard, place in shards
    ]


def write_shards(
    jobs: Sequence[ShardJob],
    workspace: Workspace,
    workers: int,
    progress: Progress,
    source: FileSystem = LOCAL,
    *,
    records_checksums: bool = False,
) -> list[WrittenShard]:
    """Carry out ``jobs``, whose files lie in ``workspace``; each is recorded there as soon as it is finished.

    What they are made of is read from ``source``.

    Each file is read back as soon as it is written, unless its job says otherwise. At that time, memory still holds
    what was read. Files that an earlier run has finished are always compared, and made again if they differ. Raises
    DifferenceError if what was written is not what was read.
    """
    report = progress_of(jobs, progress)
    kept = frozenset(workspace.journal.finished)
    make = partial(make_shard, workspace=workspace, kept=kept, source=source, records_checksum=records_checksums)
    return in_parallel(make, jobs, workers, report)


def progress_of(jobs: Sequence[ShardJob], progress: Progress) -> Report:
    """What shows how far ``jobs`` have come: the bytes of their files, each once."""
    verify = any(job.verify for job in jobs)
    size, work = sum(job.size for job in jobs), sum(job.work for job in jobs)
    task = "Converting and verifying" if verify else "Converting"
    return _in_proportion(progress(task, size, len(jobs)), Fraction(size, work or 1))


def compare_shards(
    jobs: Sequence[ShardJob],
    sources: Collection[Path],
    workspace: Workspace,
    workers: int,
    progress: Progress,
    source: FileSystem = LOCAL,
) -> None:
    """Compare those files of ``jobs``, which lie in ``workspace``, once more that are made from any of ``sources``.

    Raises DifferenceError if they are not what is there now.
    """
    again = [job for job in jobs if any(byte_range.path in sources for byte_range in job.ranges)]
    report = progress("Comparing once more", sum(job.size for job in again), len(again))
    in_parallel(partial(check, source=source, target=workspace.target), again, workers, report)


def _in_proportion(report: Report, part: Fraction) -> Report:
    """What shows ``part`` of all steps: the bytes of the files, which pass once more when they are read back."""
    passed = shown = 0

    def step(done: int, finished: int) -> None:
        nonlocal passed, shown
        passed += done
        report(int(passed * part) - shown, finished)
        shown = int(passed * part)

    return step


def make_shard(
    job: ShardJob,
    advance: Advance,
    *,
    workspace: Workspace,
    kept: Collection[str],
    source: FileSystem = LOCAL,
    records_checksum: bool = False,
) -> WrittenShard:
    """The file of ``job``, written; or what an earlier run has ``kept`` of it, if that is what it should be.

    ``records_checksum``: the journal gets its checksum, for those who cannot compare it with the source.
    """
    name = job.path.name
    workspace.check()
    shard = _kept(job, advance, workspace, source) if name in kept else None
    if shard is None:
        shard = write_and_check(job, advance, source=source, target=workspace.target)
        workspace.check()
        known = shard.checksums.whole if records_checksum and shard.checksums is not None else None
        workspace.journal.record(name, checksum=known)
    LOG.info("%s: %s", job.path, "kept from an earlier run" if shard.kept else f"written, {job.size} bytes")
    return shard


def _kept(job: ShardJob, advance: Advance, workspace: Workspace, source: FileSystem) -> WrittenShard | None:
    """The file of ``job`` that an earlier run finished; None, and it is gone, if it is not what it should be."""
    target = workspace.target
    known = workspace.journal.checksums.get(job.path.name)
    try:
        stamp = target.stamp(job.path)
        if job.once and known is not None:
            checksums = check_by_checksum(job, known, advance, target)
        else:
            checksums = check(job, advance, source=source, target=target)
    except (DifferenceError, OSError) as error:  # a crash of the machine can lose what was said to be on the disk
        if isinstance(error, OSError) and error.filename != str(job.path):
            raise
        workspace.journal.forget(job.path.name)
        with suppress(FileNotFoundError):
            workspace.directory.remove(job.path.name)
        return None
    advance(job.work - job.size)
    return WrittenShard(job.path.name, 0, checksums, stamp, kept=True)
