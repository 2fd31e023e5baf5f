"""Arrange target tensors into safetensors files: which shard, which order, which header."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from internvl_bridge.storage.block_alignment import congruent_start
from internvl_bridge.storage.byte_range import ByteRange, coalesced
from internvl_bridge.storage.header import DTYPE_BITS, Entry, canonical_order, encode_header, padded
from internvl_bridge.storage.source_shards import SINGLE_FILE


# A named tuple, as there is one for every tensor: a frozen dataclass takes twice as long to make.
class TargetTensor(NamedTuple):
    """A tensor to write: dtype, shape, and the byte ranges that make up its data, in order."""

    dtype: str
    shape: tuple[int, ...]
    ranges: tuple[ByteRange, ...]

    @property
    def length(self) -> int:
        return sum([byte_range.length for byte_range in self.ranges])  # a list of one or two takes half the time


@dataclass(frozen=True, slots=True)
class ShardContents:
    """The tensors of one file to write, in physical order, and its safetensors metadata.

    ``canonical``: its header is that of ``safetensors.torch.save`` to the last byte. This is so even where more spaces
    would let the file system share the data with the source.
    """

    tensors: Mapping[str, TargetTensor]
    metadata: Mapping[str, str]
    canonical: bool = False


@dataclass(frozen=True, slots=True)
class OutputShard:
    """One file to write: its first bytes, then byte ranges to copy behind them.

    ``ends`` are where the tensors ``keys`` end, one after the other, counted from the end of the header. ``equals`` is
    the file of the source that it equals to the last byte, so that a link can stand for it.
    """

    name: str
    header: bytes
    ranges: tuple[ByteRange, ...]
    keys: tuple[str, ...]
    ends: tuple[int, ...] = ()
    equals: Path | None = None

    @property
    def data_size(self) -> int:
        return sum(byte_range.length for byte_range in self.ranges)

    @property
    def size(self) -> int:
        return len(self.header) + self.data_size


def reshard(shards: Sequence[ShardContents], max_bytes: int) -> list[ShardContents]:
    """The same tensors in the same order, in shards of at most ``max_bytes`` of data.

    A tensor that is larger than ``max_bytes`` gets a shard of its own.
    """
    result: list[ShardContents] = []
    room = 0
    tensors: dict[str, TargetTensor] = {}
    for shard in shards:
        for key, tensor in shard.tensors.items():
            if not result or tensor.length > room or result[-1].metadata != shard.metadata:
                tensors, room = {}, max_bytes
                result.append(ShardContents(tensors, shard.metadata))
            tensors[key] = tensor
            room -= tensor.length
    return result


def cut_where_sources_end(shards: Sequence[ShardContents], max_bytes: int) -> list[ShardContents]:
    """As :func:`reshard`, but every file has tensors of one of ``shards`` alone, if that takes one file more at most.

    So a shard that is small enough stays as it is.
    """
    packed = reshard(shards, max_bytes)
    apart = [part for shard in shards for part in reshard([shard], max_bytes)]
    return apart if len(apart) <= len(packed) + 1 else packed


def by_name(shard: ShardContents) -> ShardContents:
    """The order of ``safetensors.torch.save``, byte for byte."""
    order = canonical_order((key, tensor.dtype) for key, tensor in shard.tensors.items())
    return ShardContents({key: shard.tensors[key] for key in order}, shard.metadata, canonical=True)


def aligned(shard: ShardContents) -> ShardContents:
    """The same order, but wider dtypes first, so that every tensor stays aligned to its elements."""
    order = sorted(shard.tensors.items(), key=lambda item: -DTYPE_BITS[item[1].dtype])
    return ShardContents(dict(order), shard.metadata)


def output_shards(shards: Sequence[ShardContents]) -> list[OutputShard]:
    """Name the files as transformers does and work out the bytes of each."""
    count = len(shards)
    names = (
        [SINGLE_FILE]
        if count == 1
        else [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    )
    return [_output_shard(name, shard) for name, shard in zip(names, shards, strict=True)]


def index_of(shards: Sequence[OutputShard], metadata: Mapping[str, object]) -> dict[str, object]:
    """The contents of the index file for ``shards``, as transformers writes it."""
    weight_map = {key: shard.name for shard in shards for key in shard.keys}
    return {
        "metadata": {**metadata, "total_size": sum(shard.data_size for shard in shards)},
        "weight_map": dict(sorted(weight_map.items())),
    }


def needs_index(shards: Sequence[OutputShard]) -> bool:
    """Whether readers need an index file to find the tensors of ``shards``."""
    return len(shards) > 1


def _output_shard(name: str, shard: ShardContents) -> OutputShard:
    entries: dict[str, Entry] = {}
    position = 0
    for key, tensor in shard.tensors.items():
        end = position + tensor.length
        entries[key] = Entry(tensor.dtype, tensor.shape, position, end)
        position = end
    ranges = coalesced(byte_range for tensor in shard.tensors.values() for byte_range in tensor.ranges)
    header = encode_header(entries, shard.metadata)
    if not shard.canonical:
        header = padded(header, congruent_start(len(header), ranges))
    return OutputShard(name, header, ranges, tuple(shard.tensors), tuple(entry.stop for entry in entries.values()))
