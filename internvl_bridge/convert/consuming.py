"""Write the weights of an output, and delete each file of the source as soon as nothing needs it any more."""

import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from internvl_bridge.checkpoint.model_plan import HEAD_IS_COPY
from internvl_bridge.convert.consumable import consumable
from internvl_bridge.convert.integrity import Recorded, checksums_of_rest, compare_with_record
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.source_watch import Stamps
from internvl_bridge.convert.tensor_places import ShardPlaces, checksums_at
from internvl_bridge.convert.write_weights import make_shard, progress_of
from internvl_bridge.errors import BridgeError, CheckpointError, DifferenceError, OutputError
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import PassingChecksums, hashed
from internvl_bridge.storage.consumed import keep_start
from internvl_bridge.storage.consumed_file import ConsumedFile
from internvl_bridge.storage.durability import sync_directory
from internvl_bridge.storage.header import read_start
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.shard_jobs import ShardJob, WrittenShard, check
from internvl_bridge.storage.stamps import Stamp, changed_meanwhile, stamp_of
from internvl_bridge.storage.workspace import HEADERS, Workspace
from internvl_bridge.work.log import LOG
from internvl_bridge.work.progress import Advance, Progress
from internvl_bridge.work.workers import in_parallel


class Consuming:
    """A source of which files are deleted one by one, while ``workspace`` gets an output that has their tensors.

    ``stamps`` are those of the files that are still there. ``checksums`` are those of tensors of deleted files that
    were compared with what the source records of them.
    """

    def __init__(
        self,
        conversion: Conversion,
        workspace: Workspace,
        stamps: Stamps,
        places: Sequence[ShardPlaces],
        check: Callable[[], None],
    ) -> None:
        self.stamps = {**stamps}
        self._before = dict(workspace.journal.consumed)
        self.checksums = {key: text for file in self._before.values() for key, text in file.checksums.items()}
        self._is_synced = False
        self._conversion, self._workspace, self._check = conversion, workspace, check
        self._places = {shard.name: place for shard, place in zip(conversion.shards, places, strict=True)}
        self._made: dict[str, WrittenShard] = {}
        self._gone = {shard.path: shard.path.name for shard in conversion.read_from if shard.is_absent}
        self._own = {shard.path: shard for shard in consumable(conversion.model, conversion.shards)}
        self._needed_by: dict[Path, set[str]] = {}
        for shard in conversion.shards:
            for part in shard.ranges:
                self._needed_by.setdefault(part.path, set()).add(shard.name)

    def write(self, jobs: Sequence[ShardJob], progress: Progress) -> list[WrittenShard]:
        """Carry out ``jobs`` one after the other, and delete what none of those that follow needs.

        Raises as :func:`internvl_bridge.convert.write_weights.write_shards`. Raises CheckpointError, too, if a file of
        the source was changed since its stamp was taken: then it is not deleted.
        """
        kept = frozenset(self._workspace.journal.finished)

        def make(job: ShardJob, advance: Advance) -> WrittenShard:
            files = [self._before[path.name] for path in _sources_of(job) if path.name in self._before]
            if files:
                made = self._made_before(job, files, advance)
            else:
                made = make_shard(job, advance, workspace=self._workspace, kept=kept)
            self._made[made.name] = made
            for path in _sources_of(job):
                if path in self._own and path not in self._gone and self._needed_by[path] <= self._made.keys():
                    self._delete(path)
            return made

        return in_parallel(make, jobs, 1, progress_of(jobs, progress))

    def _made_before(self, job: ShardJob, files: Sequence[ConsumedFile], advance: Advance) -> WrittenShard:
        """The file of ``job``, of whose sources an earlier run has deleted ``files``, or was about to.

        It is right if it has the checksum that was written down then. A source that is there again was perhaps brought
        back. It is never trusted more than the file that was made of it.
        """
        made, names = self._read_back(job, advance), ", ".join(file.name for file in files)
        is_complete = not any(path in self._gone for path in _sources_of(job))
        if made is None or not _is_right(made, files):
            if not is_complete:
                raise DifferenceError(
                    f"{job.path} is not what was written and compared before {names} was deleted.",
                    f"Bring {names} back from another copy of the source, and give the same command again.",
                )
            return self._made_again(job, files, advance)
        if is_complete:
            try:
                check(job, target=self._workspace.target)
            except DifferenceError as error:
                raise CheckpointError(
                    f"{names} in the source is not what it was when {job.path} was made of it, and compared.",
                    f"If it was damaged since, or another file was put there: remove {names}, and give the same "
                    f"command again.",
                ) from error
        return made

    def _made_again(self, job: ShardJob, files: Sequence[ConsumedFile], advance: Advance) -> WrittenShard:
        """The file of ``job``, made of a source that was brought back, if that is what it was."""
        name = job.path.name
        with suppress(FileNotFoundError):
            self._workspace.directory.remove(name)
        made = make_shard(job, advance, workspace=self._workspace, kept=())
        if _is_right(made, files):
            return made
        self._workspace.journal.forget(name)
        self._workspace.directory.remove(name)
        raise DifferenceError(
            f"{files[0].name} was brought back, but it is not the file that was deleted.",
            f"Bring {files[0].name} back from another copy of the source, and give the same command again.",
        )

    def _read_back(self, job: ShardJob, advance: Advance) -> WrittenShard | None:
        """The file of ``job`` as it is; None if it is not there."""
        target, checksums = self._workspace.target, PassingChecksums(job.intervals)
        try:
            stamp = target.stamp(job.path)
            with FileReader(target, forgets={job.path}) as reader:
                for window in hashed(reader.windows([ByteRange(job.path, 0, stamp.size)]), checksums):
                    advance(len(window))
        except FileNotFoundError:
            return None
        advance(job.work - stamp.size)
        return WrittenShard(job.path.name, 0, checksums.result, stamp, kept=True)

    def _delete(self, path: Path) -> None:
        """Delete the file ``path`` of the source, after all that must be true then was looked at."""
        compared = self._compare_with_record(path)
        made = {name: self._made[name] for name in self._needed_by[path]}
        self._workspace.check()
        self._sync()
        for name, shard in made.items():
            now = self._workspace.target.stamp(self._workspace.files / name)
            if now != shard.stamp or shard.stamp.is_touched(now) or shard.checksums is None:
                raise OutputError(
                    f"{self._workspace.files / name} was changed by somebody else, so that {path} is not deleted.",
                    "Give the same command again when nothing else uses that directory.",
                )
        wholes = {name: shard.checksums.whole for name, shard in made.items() if shard.checksums is not None}
        with held(path.parent) as directory:
            self._write_down(path, wholes, compared)
            try:
                _unlink(directory, path.name, self.stamps[path])
            except (OSError, BridgeError):
                if directory.found(path.name) is not None:
                    self._spare(path.name)
                raise
        del self.stamps[path]
        self._gone[path] = path.name
        LOG.info("%s: deleted", path)

    def _spare(self, name: str) -> None:
        """Take back that ``name`` is deleted."""
        self._workspace.journal.spare(name)
        if not self._workspace.journal.consumed:
            self._workspace.around.remove(HEADERS)

    def _sync(self) -> None:
        """Make the names of all that the output has so far durable, up to the root."""
        around = self._workspace.around.path.absolute()
        for directory in (self._workspace.files, around, *(() if self._is_synced else around.parents)):
            sync_directory(directory)
        self._is_synced = True

    def _write_down(self, path: Path, made: Mapping[str, str], checksums: Mapping[str, str]) -> None:
        journal, conversion = self._workspace.journal, self._conversion
        if not journal.consumed:
            is_copy = conversion.head is OutputHead.COPY
            told = {"warnings": [*conversion.warnings], "notes": [*conversion.notes]}
            journal.remember({HEAD_IS_COPY: is_copy, **told})
        start, size = read_start(path)
        keep_start(self._workspace.around, path.name, start)
        stamp, status = self.stamps[path], path.lstat()
        mode, group = stat.S_IMODE(status.st_mode), status.st_gid
        journal.consume(ConsumedFile(path.name, size, stamp.modified, stamp.header, mode, group, made, checksums))

    def _compare_with_record(self, path: Path) -> dict[str, str]:
        """Compare the tensors in ``path`` with what the source records of them, while they can be read.

        Their checksums.
        """
        conversion = self._conversion
        model, record = conversion.model, conversion.recorded
        keys = {key for key in record.tensors if model.checkpoint.tensors[key].data.path == path}
        record = Recorded({key: record.tensors[key] for key in keys}, record.firm & keys, {})
        passed: dict[str, str] = {}
        for name in self._needed_by[path]:
            passed |= checksums_at(self._places[name].sources, self._made[name].checksums)
        passed |= checksums_of_rest(record, passed, model, self._check)
        compare_with_record(record, passed, model, conversion.execution.accept)
        found = {key: passed[key] for key in sorted(keys & passed.keys())}
        self.checksums |= found
        return found


def _sources_of(job: ShardJob) -> list[Path]:
    return [*dict.fromkeys(part.path for part in job.ranges)]


def _is_right(made: WrittenShard, files: Sequence[ConsumedFile]) -> bool:
    """Whether ``made`` has the checksum that was written down of it before ``files`` were deleted."""
    whole = None if made.checksums is None else made.checksums.whole
    return all(file.made.get(made.name) == whole for file in files)


def _unlink(directory: HeldDirectory, name: str, stamp: Stamp) -> None:
    """Delete ``name`` if it still is the file of that ``stamp``, and no link to it."""
    now = stamp_of(directory.path / name, stamp.header)
    found = directory.status(name)
    is_same = (found.st_dev, found.st_ino) == stamp.place and stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if not is_same or now != stamp or stamp.is_touched(now):
        raise changed_meanwhile(directory.path / name)
    directory.remove(name)
    sync_directory(directory.path)
