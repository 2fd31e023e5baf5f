"""Write the share of one worker of the files of weights: another run finishes the output when all are there."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_bridge.convert.disk_budget import budget_of, check_room
from internvl_bridge.convert.identity import identity_of
from internvl_bridge.convert.layout_check import check_layout
from internvl_bridge.convert.logging_runs import log_begin
from internvl_bridge.convert.make_weights import check_data, make_weights, nothing_kept, output_permissions, places_of
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.shares import share_of
from internvl_bridge.convert.source_watch import Stamps, check_contents, settled_stamps
from internvl_bridge.storage.finished_by_workers import worker_directory
from internvl_bridge.storage.free_space import used_bytes
from internvl_bridge.storage.output_place import partial_path
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.publishing import finished_files
from internvl_bridge.storage.stamps import check_unchanged
from internvl_bridge.storage.worker_space import worker_space
from internvl_bridge.storage.workspace import keep_only
from internvl_bridge.work.interrupts import interrupts_held
from internvl_bridge.work.progress import Progress, silent, stoppable
from internvl_bridge.work.worker_number import Worker

ACCEPTED, STREAMED, CHANGED = "accepted", "streamed", "changed"
"""What a worker remembers for whoever finishes the output: names of what was accepted, and if the source was streamed.

Also when each file of the source was last changed in any way. Programs cannot set that time.
"""


@dataclass(frozen=True, slots=True)
class ShareReport:
    """What one worker has done for ``output``: the ``files`` that it has finished, of which earlier runs had ``kept``.

    ``bytes`` are those of tensors in them. ``elsewhere`` are files of its share that others had finished. ``missing``
    are those files of weights that no worker has finished so far.
    """

    worker: str
    output: Path
    files: tuple[str, ...]
    kept: tuple[str, ...]
    elsewhere: tuple[str, ...]
    missing: tuple[str, ...]
    bytes: int
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """The report as values that :func:`json.dumps` takes."""
        return {
            "worker": self.worker,
            "output": str(self.output),
            "files": list(self.files),
            "kept": list(self.kept),
            "elsewhere": list(self.elsewhere),
            "missing": list(self.missing),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
        }


def carry_out_share(conversion: Conversion, worker: Worker, progress: Progress = silent) -> ShareReport:
    """Write, and read back, those files of weights that are the share of ``worker``. Nothing is published.

    Goes on where an earlier run of the same worker was stopped. What others have finished is left out, also if they
    were more or fewer then.
    """
    start = time.monotonic()
    log_begin(conversion)
    output, execution, model = conversion.output, conversion.execution, conversion.model
    copied = copied_shards(conversion)
    with interrupts_held() as check:
        heard = stoppable(progress, check)
        check_data(conversion, execution.reads)
        identity = identity_of(conversion)
        check_layout(conversion.shards, conversion.targets)
        directory = worker_directory(worker.number, worker.of)
        allowed = output_permissions(conversion)
        with worker_space(output, identity, directory, overwrite=execution.overwrite, permissions=allowed) as workspace:
            _check_room(conversion)
            share = share_of(copied, worker)
            elsewhere = {*finished_files(output, identity)} - {*workspace.journal.finished}
            own = [shard for shard in share if shard.name not in elsewhere]
            keep_only(workspace, {shard.name for shard in own})
            stamps = settled_stamps(model, conversion.there, heard)
            known = {ACCEPTED: sorted(execution.accept), STREAMED: execution.stream, CHANGED: changes_of(stamps)}
            workspace.journal.remember(known)
            mine = replace(conversion, shards=tuple(own))
            written = make_weights(mine, workspace, stamps, places_of(mine), heard, execution.reads)
            check_contents(conversion.inputs, conversion.contents)
            with nothing_kept(workspace):
                check_unchanged(stamps.items())
            there = {*finished_files(output, identity)}
    return ShareReport(
        worker=str(worker),
        output=output,
        files=tuple(shard.name for shard in written),
        kept=tuple(shard.name for shard in written if shard.kept),
        elsewhere=tuple(shard.name for shard in share if shard.name in elsewhere),
        missing=tuple(shard.name for shard in copied if shard.name not in there),
        bytes=sum(shard.data_size for shard in own),
        seconds=time.monotonic() - start,
    )


def copied_shards(conversion: Conversion) -> list[OutputShard]:
    """The files of weights that workers write: all that are not links to files of the source."""
    return [shard for shard in conversion.shards if shard.equals is None]


def changes_of(stamps: Stamps) -> dict[str, int]:
    """When each file of the source was last changed in any way, in nanoseconds, by its path."""
    return {str(path.resolve()): stamp.changed for path, stamp in stamps.items()}


def _check_room(conversion: Conversion) -> None:
    """Raise OutputError if the whole output does not fit, counting what all workers have written of it."""
    budget = budget_of(conversion)
    used = used_bytes(partial_path(conversion.output))
    check_room(replace(budget, room=max(0, budget.room - used)), conversion.output)
