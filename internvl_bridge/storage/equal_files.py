"""Find the files of an output that a file of the source equals, so that links can stand for them."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from internvl_bridge.storage.header import parse_start, read_start
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.source_shards import Shard
from internvl_bridge.storage.stamps import changed_meanwhile


def with_equal_files(shards: Sequence[OutputShard], sources: Iterable[Shard]) -> tuple[OutputShard, ...]:
    """``shards``, where each that one of ``sources`` equals has the header of that file, and names it.

    Two files are equal if they have the same data, and headers that mean the same. The bytes of the headers may differ
    in spaces and in the order of their fields. The real path is named, never a link to it.

    Raises CheckpointError if a source is not what it was when it was opened.
    """
    by_path = {source.path: source for source in sources}
    return tuple(_with_equal_file(shard, by_path) for shard in shards)


def _with_equal_file(shard: OutputShard, sources: Mapping[Path, Shard]) -> OutputShard:
    source = sources.get(shard.ranges[0].path) if len(shard.ranges) == 1 else None
    if source is None or shard.ranges[0].offset + shard.ranges[0].length != source.stamp.size:
        return shard
    start, size = read_start(source.path)
    stored, planned = (
        parse_start(path, header, of_size)
        for path, header, of_size in ((source.path, start, size), (Path(shard.name), shard.header, shard.size))
    )
    if (size, stored.checksum) != (source.stamp.size, source.stamp.header):
        raise changed_meanwhile(source.path)
    is_equal = [*stored.entries.items()] == [*planned.entries.items()] and stored.metadata == planned.metadata
    if not is_equal or stored.data_start != shard.ranges[0].offset:
        return shard
    return replace(shard, header=start, equals=Path(os.path.realpath(source.path)))
