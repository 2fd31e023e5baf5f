"""Where in the files of an output the tensors of the output and of the source lie, to take their checksums there."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import FileChecksums, Interval
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.source_shards import StoredTensor

Places = Mapping[str, Interval]
"""By key, where in a file a tensor begins and ends."""
_Stored = Sequence[tuple[int, int, str]]
"""Offset, length and key of the tensors of a source file, in their order."""


@dataclass(frozen=True, slots=True)
class ShardPlaces:
    """Where in a file of the output its own tensors lie, and those of the source that it has in one piece.

    ``crcs``: where those parts of source files lie for which the file states a CRC-32, that, and the part.
    """

    targets: Places
    sources: Places
    crcs: tuple[tuple[Interval, int, ByteRange], ...]

    @property
    def intervals(self) -> Collection[Interval]:
        """All places, each once."""
        return {*self.targets.values(), *self.sources.values()}


def places_in(
    shards: Sequence[OutputShard], sources: Mapping[str, StoredTensor], crcs: Mapping[ByteRange, int]
) -> list[ShardPlaces]:
    """The places in each of ``shards``, those of the tensors ``sources`` and of what has ``crcs`` included."""
    tensors = _by_file((tensor.data, key) for key, tensor in sources.items())
    records = _by_file((place, str(place.offset)) for place in crcs)
    return [ShardPlaces(_targets(shard), _sources(shard, tensors), _crcs(shard, records, crcs)) for shard in shards]


def checksums_at(places: Places, checksums: FileChecksums | None) -> dict[str, str]:
    """The checksums of the tensors at ``places``, by key; none if no pass has seen the file."""
    return {} if checksums is None else {key: checksums.parts[place] for key, place in places.items()}


def _by_file(places: Iterable[tuple[ByteRange, str]]) -> dict[Path, _Stored]:
    found: dict[Path, list[tuple[int, int, str]]] = {}
    for place, key in places:
        found.setdefault(place.path, []).append((place.offset, place.length, key))
    return {path: sorted(stored) for path, stored in found.items()}


def _targets(shard: OutputShard) -> Places:
    start = len(shard.header)
    starts = (0, *shard.ends[:-1])
    return {key: (start + begin, start + end) for key, begin, end in zip(shard.keys, starts, shard.ends, strict=True)}


def _sources(shard: OutputShard, by_file: Mapping[Path, _Stored]) -> Places:
    return {key: (begin, begin + origin.length) for origin, key, begin in _pieces(shard, by_file)}


def _crcs(
    shard: OutputShard, by_file: Mapping[Path, _Stored], crcs: Mapping[ByteRange, int]
) -> tuple[tuple[Interval, int, ByteRange], ...]:
    pieces = _pieces(shard, by_file)
    return tuple(((begin, begin + origin.length), crcs[origin], origin) for origin, _, begin in pieces)


def _pieces(shard: OutputShard, by_file: Mapping[Path, _Stored]) -> Iterator[tuple[ByteRange, str, int]]:
    """What ``shard`` has in one piece: its place in the source, its key there, and where it begins here."""
    position = len(shard.header)
    for part in shard.ranges:
        stored = by_file.get(part.path, ())
        for number in range(bisect_left(stored, (part.offset, 0, "")), len(stored)):
            offset, length, key = stored[number]
            if offset + length > part.offset + part.length:
                break
            yield ByteRange(part.path, offset, length), key, position + offset - part.offset
        position += part.length
