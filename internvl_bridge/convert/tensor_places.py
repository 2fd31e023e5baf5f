"""Where in the files of an output the tensors of the output and of the source lie, to take their checksums there."""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.storage.checksums import FileChecksums, Interval
from internvl_bridge.storage.header import parse_start
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.source_shards import StoredTensor

Places = Mapping[str, Interval]
"""By key, where in a file a tensor begins and ends."""
_Stored = Sequence[tuple[int, int, str]]
"""Offset, length and key of the tensors of a source file, in their order."""


@dataclass(frozen=True, slots=True)
class ShardPlaces:
    """Where in a file of the output its own tensors lie, and those of the source that it has in one piece."""

    targets: Places
    sources: Places

    @property
    def intervals(self) -> Collection[Interval]:
        """All places, each once."""
        return {*self.targets.values(), *self.sources.values()}


def places_in(shards: Sequence[OutputShard], sources: Mapping[str, StoredTensor]) -> list[ShardPlaces]:
    """The places in each of ``shards``, those of the tensors ``sources`` included."""
    by_file: dict[Path, list[tuple[int, int, str]]] = {}
    for key, tensor in sources.items():
        by_file.setdefault(tensor.data.path, []).append((tensor.data.offset, tensor.data.length, key))
    for found in by_file.values():
        found.sort()
    return [ShardPlaces(_targets(shard), _sources(shard, by_file)) for shard in shards]


def checksums_at(places: Places, checksums: FileChecksums | None) -> dict[str, str]:
    """The checksums of the tensors at ``places``, by key; none if no pass has seen the file."""
    return {} if checksums is None else {key: checksums.parts[place] for key, place in places.items()}


def _targets(shard: OutputShard) -> Places:
    start, entries = len(shard.header), parse_start(Path(shard.name), shard.header, shard.size).entries
    return {key: (start + entry.start, start + entry.stop) for key, entry in entries.items()}


def _sources(shard: OutputShard, by_file: Mapping[Path, _Stored]) -> Places:
    places: dict[str, Interval] = {}
    position = len(shard.header)
    for part in shard.ranges:
        stored = by_file.get(part.path, ())
        for offset, length, key in stored[bisect_left(stored, (part.offset, 0, "")) :]:
            if offset + length > part.offset + part.length:
                break
            begin = position + offset - part.offset
            places[key] = (begin, begin + length)
        position += part.length
    return places
