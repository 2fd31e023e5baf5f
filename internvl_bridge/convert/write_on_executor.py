"""Write the weights of an output with an executor: others do the work, and this run alone decides what counts."""

import os
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from internvl_bridge.convert.source_watch import Stamps
from internvl_bridge.convert.write_weights import progress_of
from internvl_bridge.errors import DifferenceError, OutputError, shown
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import FileChecksums
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.permissions import OWNER_DIRECTORY, OWNER_FILE, allow_owner
from internvl_bridge.storage.shard_jobs import DAMAGED, ShardJob, WrittenShard
from internvl_bridge.storage.shard_tasks import Attempt, ShardTask, read_again, write_attempt
from internvl_bridge.storage.workspace import Workspace
from internvl_bridge.work.executors import given_to
from internvl_bridge.work.log import LOG
from internvl_bridge.work.progress import Progress, Report

_MOST_AT_A_TIME = 64
_ATTEMPTS, _STOPPED = "attempts-", ".stopped"
Result = TypeVar("Result")


def write_on_executor(
    executor: Executor,
    jobs: Sequence[ShardJob],
    workspace: Workspace,
    stamps: Stamps,
    limit: int | None,
    progress: Progress,
) -> list[WrittenShard]:
    """Carry out ``jobs`` on ``executor``, at most ``limit`` at a time; each is recorded in ``workspace``.

    Source files are what they were when ``stamps`` were taken. Each file is read once more, by whoever gets that to do,
    unless its job says otherwise. It has to have the checksum of what was read of the source. Files that an earlier run
    has finished are compared with the source, and made again if they differ.

    Raises OutputError if a worker ends and reports nothing. Raises DifferenceError if it reports what is not true, or a
    file is not what was read.
    """
    with _attempts(workspace) as attempts, _no_worker_lost(workspace):
        mode = _mode(attempts, workspace.target.mode)
        run = _Run(executor, workspace, attempts, mode, limit or _MOST_AT_A_TIME, progress_of(jobs, progress))
        tasks = [_task(job, run, stamps) for job in jobs]
        kept = run.compare_finished([task for task in tasks if task.name in workspace.journal.finished])
        made = kept | run.write_missing([task for task in tasks if task.name not in kept])
    return [made[job.path.name] for job in jobs]


@dataclass(frozen=True, slots=True)
class _Run:
    """What gives tasks to ``executor``, and takes what they leave in ``attempts`` over into ``workspace``.

    Files get the permissions ``mode``, whatever a worker's own settings are.
    """

    executor: Executor
    workspace: Workspace
    attempts: HeldDirectory
    mode: int
    limit: int
    report: Report

    def compare_finished(self, tasks: Sequence[ShardTask]) -> dict[str, WrittenShard]:
        """Those files that an earlier run has finished, and that are what they should be; the others are gone."""
        found: dict[str, WrittenShard] = {}
        journal, there = self.workspace.journal, self.workspace.directory.files()
        for task in tasks:
            if task.name not in there:
                self._drop(task)
        known = [
            replace(task, checksum=journal.checksums.get(task.name) if task.job.once else None)
            for task in tasks
            if task.name in there
        ]
        stamps = {task.name: self.workspace.target.stamp(task.job.path) for task in known}
        with self._given(read_again, known) as done:
            for task, future in done:
                try:
                    checksums = _read(future, task)
                    found[task.name] = WrittenShard(task.name, 0, checksums, stamps[task.name], kept=True)
                except DifferenceError:
                    self._drop(task)
                    continue
                self.report(task.job.work, 1)
        return found

    def write_missing(self, tasks: Sequence[ShardTask]) -> dict[str, WrittenShard]:
        """The files of ``tasks``, written, and read once more."""
        made: dict[str, WrittenShard] = {}
        unread: list[ShardTask] = []
        with self._given(write_attempt, tasks) as written:
            for task, future in written:
                attempt = _written(future, task)
                made[task.name] = self._placed(task, attempt)
                if task.job.verify:
                    unread.append(replace(task, checksum=_whole(attempt)))
                self.report(task.job.size, 0 if task.job.verify else 1)
        with self._given(read_again, unread) as read:
            for task, result in read:
                try:
                    made[task.name] = replace(made[task.name], checksums=_read(result, task))
                except DifferenceError:
                    self._drop(task)
                    raise
                self.report(task.job.size, 1)
        return made

    def _placed(self, task: ShardTask, attempt: Attempt) -> WrittenShard:
        """The file of ``attempt`` in its place, if it is what a file of ``task`` can be."""
        self.workspace.check()
        self._check(task, attempt)
        self.attempts.move(attempt.name, self.workspace.directory, task.name)
        for name in self.attempts.names():
            if name.startswith(f"{task.name}."):  # a worker that died has left it
                self.attempts.remove(name)
        stamp = self.workspace.target.stamp(task.job.path)
        self.workspace.journal.record(task.name)
        LOG.info("%s: written, %d bytes", task.job.path, task.job.size)
        return WrittenShard(task.name, attempt.cloned, attempt.checksums, stamp)

    def _check(self, task: ShardTask, attempt: Attempt) -> None:
        """Raise DifferenceError unless ``attempt`` has the size and the header of its file, as this machine sees it."""
        header, wrong = task.job.header, _not_true(task, attempt)
        try:
            file = self.attempts.open(attempt.name, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise wrong from error
        try:
            with suppress(OSError):  # some file systems have no modes of their own
                os.fchmod(file, self.mode)
            is_right = os.fstat(file).st_size == task.job.size and os.pread(file, len(header), 0) == header
        finally:
            os.close(file)
        if not is_right:
            raise wrong

    def _drop(self, task: ShardTask) -> None:
        self.workspace.journal.forget(task.name)
        with suppress(FileNotFoundError):
            self.workspace.directory.remove(task.name)

    def _given(
        self, work: Callable[[ShardTask], Result], tasks: Sequence[ShardTask]
    ) -> "closing[Generator[tuple[ShardTask, Future[Result]]]]":
        """The tasks that are done; at the end of the ``with``, however it came, none is under way."""
        return closing(
            given_to(self.executor, work, tasks, self.limit, check=self._check_interrupt, cancel=self._cancel_running)
        )

    def _check_interrupt(self) -> None:
        self.report(0, 0)

    def _cancel_running(self) -> None:
        """Let all that is under way end: what writes looks whether ``attempts`` is still there."""
        around, name = self.workspace.around, self.attempts.path.name
        with suppress(OSError):
            around.move(name, around, f"{name}{_STOPPED}")  # what still writes keeps it from being removed


@contextmanager
def _attempts(workspace: Workspace) -> Iterator[HeldDirectory]:
    """A directory for what is being written, whose name nobody can know who was not told by this run."""
    around = workspace.around
    for left in around.names():
        if left.startswith(_ATTEMPTS):  # of a run that was killed
            around.remove(left)
    name = f"{_ATTEMPTS}{workspace.journal.run}"
    around.make(name, OWNER_DIRECTORY)
    with held(around.path.absolute() / name, around) as attempts:
        try:
            yield attempts
        finally:
            for left in (name, f"{name}{_STOPPED}"):
                with suppress(OSError):
                    around.remove(left)


def _task(job: ShardJob, run: _Run, stamps: Stamps) -> ShardTask:
    """``job`` for another process, which may have another working directory."""
    paths = {byte_range.path for byte_range in job.ranges}
    here = {path: path.absolute() for path in paths}

    def absolute(byte_range: ByteRange) -> ByteRange:
        return byte_range._replace(path=here[byte_range.path])

    elsewhere = replace(
        job,
        path=job.path.absolute(),
        ranges=tuple(map(absolute, job.ranges)),
        uncached=frozenset(here[path] for path in job.uncached),
        crcs=tuple((place, crc, absolute(origin)) for place, crc, origin in job.crcs),
    )
    sources = tuple((here[path], stamps[path]) for path in sorted(paths))
    return ShardTask(elsewhere, run.attempts.path, run.workspace.target.mode, sources)


def _written(future: Future[Any], task: ShardTask) -> Attempt:
    """What a worker reports that has written the file of ``task``; the name is one in the directory of attempts."""
    attempt = future.result()
    if not isinstance(attempt, Attempt) or not _is_name(attempt.name, task):
        raise _not_true(task, attempt)
    return attempt


def _is_name(name: object, task: ShardTask) -> bool:
    return isinstance(name, str) and name.startswith(f"{task.name}.") and {"/", "\0"}.isdisjoint(name)


def _read(future: Future[Any], task: ShardTask) -> FileChecksums:
    """What a worker reports that has read the file of ``task``: its checksums, if they are the right ones."""
    checksums = future.result()
    if not isinstance(checksums, FileChecksums) or task.checksum not in {None, checksums.whole}:
        raise _not_true(task, checksums)
    return checksums


def _not_true(task: ShardTask, report: object) -> DifferenceError:
    return DifferenceError(f"A worker reports of {task.job.path} what is not true: {shown(report)}.", DAMAGED)


def _whole(attempt: Attempt) -> str | None:
    return None if attempt.checksums is None else attempt.checksums.whole


def _mode(attempts: HeldDirectory, mode: int) -> int:
    """The permissions that a new file of this process gets that asks for ``mode``."""
    file = attempts.open("mode", os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        allow_owner(file, OWNER_FILE)
        return stat.S_IMODE(os.fstat(file).st_mode)
    finally:
        os.close(file)
        attempts.remove("mode")


@contextmanager
def _no_worker_lost(workspace: Workspace) -> Iterator[None]:
    """Raise OutputError if a worker ends and reports nothing."""
    try:
        yield
    except (BrokenExecutor, CancelledError) as error:
        raise OutputError(
            f"Not all files of {workspace.files} are written: a worker ended and reported nothing ({error}).",
            "Give the same command again: it goes on from what is finished.",
        ) from error
