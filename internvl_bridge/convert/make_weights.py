"""Make the files of weights of a conversion, from a source that stays what it was."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from internvl_bridge.convert.consuming import Consuming
from internvl_bridge.convert.link_weights import inherited, read_links, written_links
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.source_watch import Stamps, check_untouched, check_weights
from internvl_bridge.convert.tensor_places import ShardPlaces, places_in
from internvl_bridge.convert.write_weights import compare_shards, shard_jobs, write_shards
from internvl_bridge.errors import BridgeError, CheckpointError, first_few
from internvl_bridge.storage.file_system import FileSystem
from internvl_bridge.storage.local_files import LOCAL, uncached
from internvl_bridge.storage.permissions import ANY, Permissions, permissions_of
from internvl_bridge.storage.shard_jobs import WrittenShard
from internvl_bridge.storage.workspace import Workspace, keep_only
from internvl_bridge.work.progress import Progress
from internvl_bridge.work.workers import check_workers


def check_data(conversion: Conversion, source: FileSystem) -> None:
    """Raise CheckpointError if the weights are not here, and not to be read from elsewhere either."""
    model = conversion.model
    if model.has_all_data or model.source.consumption is not None or source is not LOCAL:
        return
    names = [shard.path.name for shard in conversion.read_from if shard.is_absent]
    raise CheckpointError(
        f"{model.source.weights} has the headers of {first_few(names)}, and not the files themselves.",
        "Put the files beside their headers, or give the place that they are from.",
    )


def places_of(conversion: Conversion) -> list[ShardPlaces]:
    """Where the tensors lie in the files of weights, with what the source states of them."""
    model = conversion.model
    sources = model.checkpoint.tensors if conversion.recorded.tensors else {}
    crcs = {} if "checksums" in conversion.execution.accept else model.weights.crcs
    return places_in(conversion.shards, sources, crcs)


def consume(
    consuming: Consuming,
    conversion: Conversion,
    workspace: Workspace,
    places: Sequence[ShardPlaces],
    progress: Progress,
) -> list[WrittenShard]:
    """Write the files of weights, and delete those of the source on the way."""
    cold = uncached(shard.path for shard in conversion.there)
    jobs = shard_jobs(zip(conversion.shards, places, strict=True), workspace.files, cold, verify=True)
    try:
        shards = consuming.write(jobs, progress)
    except BridgeError:
        check_untouched(consuming.stamps)  # a change of the source would be the reason
        raise
    compare = partial(compare_shards, jobs, workspace=workspace, workers=1, progress=progress)
    check_weights(conversion.model, consuming.stamps, compare)
    return shards


def _made_from(changed: Collection[Path], conversion: Conversion) -> Collection[Path]:
    computation = conversion.computation
    return changed if computation is None else computation.depending_on(changed)


def make_weights(
    conversion: Conversion,
    workspace: Workspace,
    stamps: Stamps,
    places: Sequence[ShardPlaces],
    progress: Progress,
    source: FileSystem,
) -> list[WrittenShard]:
    """Write the files of weights, from a ``source`` that is what it was when ``stamps`` were taken."""
    execution, model = conversion.execution, conversion.model
    cold = uncached(shard.path for shard in conversion.there)
    copied = [(shard, place) for shard, place in zip(conversion.shards, places, strict=True) if shard.equals is None]
    once = execution.reads is not LOCAL or execution.rereads
    jobs = shard_jobs(copied, workspace.files, cold, verify=execution.verify, once=once)
    workers = check_workers(execution.workers if execution.executor is None else None)
    try:
        if execution.executor is None:
            records = once or execution.worker is not None
            copies = write_shards(jobs, workspace, workers, progress, source, records_checksums=records)
        else:
            from internvl_bridge.convert.write_on_executor import write_on_executor  # noqa: PLC0415 (few have one)

            copies = write_on_executor(execution.executor, jobs, workspace, stamps, execution.workers, progress)
        shards = [*copies, *_links(conversion, workspace, places, progress)]
    except BridgeError:
        with nothing_kept(workspace):
            check_untouched(stamps)  # a change of the source would be the reason
        raise
    with nothing_kept(workspace):
        compare = partial(compare_shards, jobs, workspace=workspace, workers=workers, progress=progress, source=source)
        check_weights(model, stamps, lambda changed: compare(_made_from(changed, conversion)))
    written = {shard.name: shard for shard in shards}
    return [written[shard.name] for shard in conversion.shards]


def _links(
    conversion: Conversion, workspace: Workspace, places: Sequence[ShardPlaces], progress: Progress
) -> list[WrittenShard]:
    """The links that stand for files of weights, with those checksums that are known."""
    links = [(shard, place) for shard, place in zip(conversion.shards, places, strict=True) if shard.equals is not None]
    if conversion.execution.read_links:
        checksums = read_links(links, check_workers(conversion.execution.workers), progress)
    else:
        checksums = inherited(links, conversion.recorded)
    return written_links(links, workspace, checksums)


def output_permissions(conversion: Conversion) -> Permissions:
    """Those of all that the output is made from."""
    if conversion.execution.reads is not LOCAL:
        return ANY
    weights = {shard.path for shard in conversion.there}
    found = permissions_of(conversion.model.directory, {*weights, *conversion.contents, *conversion.copies})
    consumption = conversion.model.source.consumption
    gone = {(file.mode, file.group) for file in consumption.files.values()} if consumption is not None else set()
    return replace(found, files=found.files | gone)


@contextmanager
def nothing_kept(workspace: Workspace) -> Iterator[None]:
    """Keep nothing in ``workspace`` if the source is found to be changed: no run could go on from what is finished.

    But what is deleted in the source is nowhere else.
    """
    try:
        yield
    except CheckpointError:
        if not workspace.journal.consumed:
            keep_only(workspace, ())
        raise
