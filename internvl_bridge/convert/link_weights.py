"""Put links into an output, where one of its files of weights equals a file of the source."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from internvl_bridge.convert.integrity import Recorded
from internvl_bridge.convert.source_watch import Stamps
from internvl_bridge.convert.tensor_places import ShardPlaces
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import FileChecksums, PassingChecksums, hashed
from internvl_bridge.storage.linking import Link, leads_to, make_link
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.shard_jobs import WrittenShard
from internvl_bridge.storage.stamps import Stamp, changed_meanwhile, settled_stamp, stamp_from, stamp_of
from internvl_bridge.storage.workspace import Workspace
from internvl_bridge.work.progress import Advance, Progress
from internvl_bridge.work.workers import in_parallel

Links = Sequence[tuple[OutputShard, ShardPlaces]]
"""Files of an output that equal files of the source, and where the tensors lie in each."""


def link_shards(shards: Iterable[OutputShard], workspace: Workspace, kind: Link, stamps: Stamps) -> Stamps:
    """Make those of ``shards`` that equal files of the source links to them; ``stamps`` as they are then.

    A hard link changes the time and the number of names of the file that it leads to. The stamps that are returned
    expect this change, and no other. All links are made before anything else is written. So a file system that refuses
    one is found at once.

    Raises OutputError if it refuses, and CheckpointError if a source was changed since its stamp was taken.
    """
    linked = {shard.name: shard for shard in shards if shard.equals is not None}
    kept = {name for name in workspace.journal.finished if name in linked and _is_there(linked[name], workspace)}
    todo = [shard for name, shard in linked.items() if name not in kept]
    workspace.journal.record(*(shard.name for shard in todo))  # before: a later run must know what to look at
    try:
        for shard in todo:
            _link(shard, workspace, kind, stamps)
        return {**stamps, **{path: _settled(path, stamps) for path in map(_source_of, todo)}}
    except BaseException:
        for shard in todo:
            workspace.journal.forget(shard.name)
        raise


def written_links(links: Links, workspace: Workspace, checksums: Mapping[str, FileChecksums]) -> list[WrittenShard]:
    """What is known of the ``links`` in ``workspace``, with their ``checksums`` if there are any."""
    status = workspace.directory.status
    return [
        WrittenShard(shard.name, 0, checksums.get(shard.name), stamp_from(status(shard.name)), leads_to=shard.equals)
        for shard, _ in links
    ]


def inherited(links: Links, recorded: Recorded) -> dict[str, FileChecksums]:
    """The checksums that the source carries of the files that ``links`` lead to, by name."""
    found: dict[str, FileChecksums] = {}
    for shard, places in links:
        whole = recorded.files.get(_source_of(shard))
        if whole is not None and recorded.tensors.keys() >= {*shard.keys}:
            parts = {place: recorded.tensors[key] for key, place in places.targets.items()}
            found[shard.name] = FileChecksums(whole, parts)
    return found


def read_links(links: Links, workers: int, progress: Progress) -> dict[str, FileChecksums]:
    """The checksums of the files that ``links`` lead to, by name: they are read."""

    def read(link: tuple[OutputShard, ShardPlaces], advance: Advance) -> FileChecksums:
        shard, places = link
        checksums = PassingChecksums(places.intervals)
        path = _source_of(shard)
        with FileReader() as reader:
            for window in hashed(reader.windows([ByteRange(path, 0, shard.size)]), checksums):
                advance(len(window))
        return checksums.result

    report = progress("Reading linked files", sum(shard.size for shard, _ in links), len(links))
    found = in_parallel(read, links, workers, report)
    return {shard.name: checksums for (shard, _), checksums in zip(links, found, strict=True)}


def _is_there(shard: OutputShard, workspace: Workspace) -> bool:
    return shard.equals is not None and leads_to(workspace.directory, shard.name, shard.equals)


def _link(shard: OutputShard, workspace: Workspace, kind: Link, stamps: Stamps) -> None:
    path = _source_of(shard)
    before = stamps[path]
    if workspace.directory.found(shard.name) is not None:
        workspace.directory.remove(shard.name)
    now = stamp_of(path, before.header)
    if now != before or before.is_touched(now):
        raise changed_meanwhile(path)
    if shard.equals is not None:
        make_link(workspace.directory, shard.name, shard.equals, kind)


def _settled(path: Path, stamps: Stamps) -> Stamp:
    before = stamps[path]
    now = settled_stamp(path, before.header)
    if (now, now.place) != (before, before.place):
        raise changed_meanwhile(path)
    return now


def _source_of(shard: OutputShard) -> Path:
    """The file of the source that ``shard`` equals, by the path that the source has for it."""
    return shard.ranges[0].path
