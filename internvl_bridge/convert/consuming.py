"""Write the weights of an output, and delete each file of the source as soon as nothing needs it any more."""

import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from internvl_bridge.checkpoint.model_plan import HEAD_IS_COPY
from internvl_bridge.convert.consumable import consumable
from internvl_bridge.convert.integrity import Recorded, checksums_of_rest, compare_with_record
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.source_watch import Stamps
from internvl_bridge.convert.tensor_places import ShardPlaces, checksums_at
from internvl_bridge.convert.write_weights import make_shard, progress_of
from internvl_bridge.errors import DifferenceError, OutputError
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import PassingChecksums, hashed
from internvl_bridge.storage.consumed import keep_start
from internvl_bridge.storage.consumed_file import ConsumedFile
from internvl_bridge.storage.durability import sync_directory
from internvl_bridge.storage.header import read_start
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.shard_jobs import ShardJob, WrittenShard
from internvl_bridge.storage.stamps import Stamp, changed_meanwhile, stamp_of
from internvl_bridge.storage.workspace import Workspace
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
        self.checksums: dict[str, str] = {}
        self._conversion, self._workspace, self._check = conversion, workspace, check
        self._places = {shard.name: place for shard, place in zip(conversion.shards, places, strict=True)}
        self._made: dict[str, WrittenShard] = {}
        self._gone = {shard.path: shard.path.name for shard in conversion.read_from if shard.is_gone}
        self._own = {shard.path: shard for shard in consumable(conversion.model)}
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
            if any(part.path in self._gone for part in job.ranges):
                made = self._proved(job, advance)
            else:
                made = make_shard(job, advance, workspace=self._workspace, kept=kept)
            self._made[made.name] = made
            for path in dict.fromkeys(part.path for part in job.ranges):
                if path in self._own and path not in self._gone and self._needed_by[path] <= self._made.keys():
                    self._delete(path)
            return made

        return in_parallel(make, jobs, 1, progress_of(jobs, progress))

    def _proved(self, job: ShardJob, advance: Advance) -> WrittenShard:
        """The file of ``job``, of whose sources some are gone: it has the checksum that was written down then."""
        name, journal, target = job.path.name, self._workspace.journal, self._workspace.target
        gone = sorted({part.path.name for part in job.ranges if part.path in self._gone})
        checksums = PassingChecksums(job.intervals)
        try:
            stamp = target.stamp(job.path)
            with FileReader(target, forgets={job.path}) as reader:
                for window in hashed(reader.windows([ByteRange(job.path, 0, stamp.size)]), checksums):
                    advance(len(window))
        except FileNotFoundError:
            stamp = None
        if stamp is None or any(journal.consumed[file].made.get(name) != checksums.result.whole for file in gone):
            raise DifferenceError(
                f"{job.path} is not what was written and compared before {', '.join(gone)} was deleted.",
                f"Bring {', '.join(gone)} back from another copy of the source, and give the same command again.",
            )
        advance(job.work - job.size)
        return WrittenShard(name, 0, checksums.result, stamp, kept=True)

    def _delete(self, path: Path) -> None:
        """Delete the file ``path`` of the source, after all that must be true then was looked at."""
        self._compare_with_record(path)
        made = {name: self._made[name] for name in self._needed_by[path]}
        self._workspace.check()
        sync_directory(self._workspace.files)
        for name, shard in made.items():
            now = self._workspace.target.stamp(self._workspace.files / name)
            if now != shard.stamp or shard.stamp.is_touched(now) or shard.checksums is None:
                raise OutputError(
                    f"{self._workspace.files / name} was changed by somebody else, so that {path} is not deleted.",
                    "Give the same command again when nothing else uses that directory.",
                )
        wholes = {name: shard.checksums.whole for name, shard in made.items() if shard.checksums is not None}
        with held(path.parent) as directory:
            self._write_down(path, wholes)
            _unlink(directory, path.name, self.stamps[path])
        del self.stamps[path]
        self._gone[path] = path.name
        LOG.info("%s: deleted", path)

    def _write_down(self, path: Path, made: Mapping[str, str]) -> None:
        journal, conversion = self._workspace.journal, self._conversion
        if not journal.consumed:
            is_copy = conversion.head is OutputHead.COPY
            told = {"warnings": [*conversion.warnings], "notes": [*conversion.notes]}
            journal.remember({HEAD_IS_COPY: is_copy, **told})
        start, size = read_start(path)
        keep_start(self._workspace.around, path.name, start)
        stamp, status = self.stamps[path], path.lstat()
        mode, group = stat.S_IMODE(status.st_mode), status.st_gid
        journal.consume(ConsumedFile(path.name, size, stamp.modified, stamp.header, mode, group, made))

    def _compare_with_record(self, path: Path) -> None:
        """Compare the tensors in ``path`` with what the source records of them, as long as they can be read."""
        conversion = self._conversion
        model, record = conversion.model, conversion.recorded
        keys = {key for key in record.tensors if model.checkpoint.tensors[key].data.path == path}
        record = Recorded({key: record.tensors[key] for key in keys}, record.firm & keys, {})
        passed: dict[str, str] = {}
        for name in self._needed_by[path]:
            passed |= checksums_at(self._places[name].sources, self._made[name].checksums)
        passed |= checksums_of_rest(record, passed, model, self._check)
        self.checksums |= {key: passed[key] for key in keys & passed.keys()}
        compare_with_record(record, passed, model, conversion.execution.accept)


def _unlink(directory: HeldDirectory, name: str, stamp: Stamp) -> None:
    """Delete ``name`` if it still is the file of that ``stamp``, and no link to it."""
    now = stamp_of(directory.path / name, stamp.header)
    found = directory.status(name)
    is_same = (found.st_dev, found.st_ino) == stamp.place and stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    if not is_same or now != stamp or stamp.is_touched(now):
        raise changed_meanwhile(directory.path / name)
    directory.remove(name)
    sync_directory(directory.path)
