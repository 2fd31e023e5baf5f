"""What a conversion costs the disk, told before it starts."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.convert.consumable import consumable
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.errors import OutputError
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.storage.block_alignment import BLOCK, file_segments
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.cloning import can_clone
from internvl_bridge.storage.free_space import existing_ancestor, free_bytes
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.source_shards import Shard

_LINE = 64
_HEADER_LINE = 192
"""Bytes that a tensor takes in a header, or a little more: headers of deleted files are kept."""
"""Bytes that a line of the index or of the checksums takes at most, beside the names in it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes: ``read`` from the source to be ``written``, and ``cloned`` instead where the file system shares blocks.

    ``linked`` are those of files that are links to files of the source: nothing of them is read or written.
    ``consumed`` are deleted in the source. ``verified`` are read from source and output alike to compare them, ``kept``
    were written by an earlier run. ``room`` is what the output still needs of the ``free`` bytes of its file system.
    """

    read: int
    written: int
    cloned: int
    linked: int
    consumed: int
    verified: int
    kept: int
    room: int
    free: int

    @property
    def fits(self) -> bool:
        return self.room <= self.free


def budget_of(conversion: Conversion, finished: Collection[str] = ()) -> Budget:
    """The budget of ``conversion``, of which the files ``finished`` are there already.

    Whether blocks can be shared is tried, in a file without a name beside the output.
    """
    place = conversion.output.parent  # whatever is mounted at the output itself
    copied = [shard for shard in conversion.shards if shard.equals is None]
    todo = [shard for shard in copied if shard.name not in finished]
    linked = sum(shard.size for shard in conversion.shards if shard.equals is not None)
    size = sum(shard.size for shard in copied)
    remaining = sum(shard.size for shard in todo)
    there = {shard.path for shard in conversion.there}
    cloned = _shareable(todo, there, existing_ancestor(place))
    companions = _companions(conversion)
    room = _most_at_a_time(conversion, finished) if conversion.execution.consume else remaining - cloned
    return Budget(
        read=sum(shard.data_size for shard in todo) - cloned + (linked if conversion.execution.read_links else 0),
        written=remaining - cloned + companions,
        cloned=cloned,
        linked=linked,
        consumed=sum(shard.stamp.size for shard in _consumed(conversion)),
        verified=size if conversion.execution.verify else size - remaining,
        kept=size - remaining,
        room=room + companions,
        free=free_bytes(place),
    )


def _consumed(conversion: Conversion) -> list[Shard]:
    own = consumable(conversion.model, conversion.shards) if conversion.execution.consume else []
    return [shard for shard in own if not shard.is_absent]


def _most_at_a_time(conversion: Conversion, finished: Collection[str]) -> int:
    """The room that is needed if files are written one after the other, and those of the source are deleted then.

    What another file system has does not give room to this one.
    """
    device = existing_ancestor(conversion.output.parent).stat().st_dev
    here = {shard.path: shard.stamp.size for shard in _consumed(conversion) if shard.path.stat().st_dev == device}
    last = {part.path: shard.name for shard in conversion.shards for part in shard.ranges}
    taken = most = len(here) * BLOCK + len(conversion.plan.recipes) * _HEADER_LINE
    for shard in conversion.shards:
        taken += 0 if shard.name in finished else shard.size
        most = max(most, taken)
        taken -= sum(size for path, size in here.items() if last.get(path) == shard.name)
    return most


def check_room(budget: Budget, output: Path) -> None:
    """Raise OutputError if the output does not fit on its file system."""
    if not budget.fits:
        raise OutputError(
            f"{output} needs {human_size(budget.room)}, but its file system has only {human_size(budget.free)} free.",
            "Make room, or choose an output on another disk.",
        )


def _companions(conversion: Conversion) -> int:
    """The bytes of all but the weights, or a little more."""
    texts = (*conversion.texts.values(), json.dumps(dict(conversion.sidecar), indent=2))
    size = sum(len(text.encode()) for text in texts) + sum(path.stat().st_size for path in conversion.copies)
    size += sum(len(name) + _LINE for name in conversion.files)
    tensors = sum(len(key) + _LINE for key in conversion.plan.recipes)
    size += tensors  # their checksums
    if conversion.index is not None:
        size += _LINE + tensors + sum(len(shard.name) * len(shard.keys) for shard in conversion.shards)
    return size


def _shareable(shards: Collection[OutputShard], there: Collection[Path], directory: Path) -> int:
    """The bytes of ``shards`` that new files in ``directory`` can share with those that are ``there``."""
    answers: dict[int, bool] = {}
    total = 0
    for shard in shards:
        for segment in file_segments(shard.header, shard.ranges):
            if segment.shareable and isinstance(segment.part, ByteRange) and segment.part.path in there:
                device = segment.part.path.stat().st_dev
                if device not in answers:
                    answers[device] = can_clone(segment.part.path, directory)
                total += segment.length if answers[device] else 0
    return total
