"""Open a directory of safetensors files as one checkpoint, or refuse it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CheckpointError, first_few
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.header import read_header
from internvl_bridge.storage.index import check_index, missing_shards, read_index, stale_files, stored_twice
from internvl_bridge.storage.stamps import Stamp, stamp_of

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a checkpoint, the metadata in its header, and what it was when that was read."""

    path: Path
    metadata: Mapping[str, str]
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor on disk: safetensors dtype, shape, and where its bytes are.

    ``shard`` is the index of its file in the checkpoint.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    data: ByteRange

    @property
    def ranges(self) -> tuple[ByteRange, ...]:
        return (self.data,)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All tensors of a directory, in physical order, shard by shard.

    ``index_metadata`` is the ``metadata`` of the index file (empty without one).
    """

    directory: Path
    shards: tuple[Shard, ...]
    tensors: Mapping[str, StoredTensor]
    index_metadata: Mapping[str, Any]

    @property
    def data_bytes(self) -> int:
        return sum(tensor.data.length for tensor in self.tensors.values())


def open_checkpoint(directory: Path) -> Checkpoint:
    """Read the headers and the index of ``directory``; no tensor data.

    Symbolic links (a hub cache) are followed. Raises CheckpointError unless every safetensors file belongs to the
    checkpoint and every tensor is in exactly one of them. The index must say the same.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory.", "Give the directory of a checkpoint.")
    weight_map, index_metadata = read_index(directory / INDEX_FILE, ".safetensors")
    names = sorted(set(weight_map.values())) if weight_map is not None else [SINGLE_FILE]
    _check_names(directory, names, indexed=weight_map is not None)
    shards: list[Shard] = []
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        path = directory / name
        stamp = stamp_of(path)  # before the header is read: a change in between is noticed later
        header = read_header(path)
        for key, entry in header.entries.items():
            if key in tensors:
                raise stored_twice(key, tensors[key].data.path, path)
            byte_range = ByteRange(path, header.data_start + entry.start, entry.stop - entry.start)
            tensors[key] = StoredTensor(entry.dtype, entry.shape, len(shards), byte_range)
        shards.append(Shard(path, header.metadata, replace(stamp, header=header.checksum)))
    if weight_map is not None:
        check_index(directory / INDEX_FILE, weight_map, {k: shards[t.shard].path.name for k, t in tensors.items()})
    return Checkpoint(directory, tuple(shards), tensors, index_metadata)


def has_weights(directory: Path) -> bool:
    """Whether ``directory`` holds a safetensors checkpoint, valid or not."""
    return (directory / INDEX_FILE).exists() or (directory / SINGLE_FILE).exists()


def _check_names(directory: Path, names: Iterable[str], *, indexed: bool) -> None:
    found = {path.name for path in directory.glob("*.safetensors")}
    wanted = set(names)
    found = {name for name in found if (directory / name).is_file()}
    if missing := sorted(wanted - found):
        if indexed:
            raise missing_shards(directory / INDEX_FILE, missing)
        raise _no_weights(directory, sorted(found))
    if stale := sorted(found - wanted):
        raise stale_files(directory, stale, INDEX_FILE if indexed else SINGLE_FILE)


def _no_weights(directory: Path, found: list[str]) -> CheckpointError:
    if any(name.startswith("adapter_") for name in found):
        return CheckpointError(
            f"{directory} holds an adapter ({first_few(found)}), not a whole model.",
            "Merge it into its base model (with peft: merge_and_unload), save that, and convert what was saved.",
        )
    if found:
        return CheckpointError(
            f"{directory} holds {first_few(found)}, but neither {SINGLE_FILE} nor {INDEX_FILE}.",
            f"Rename a single file to {SINGLE_FILE}; restore the index of several.",
        )
    pickled = sorted(path.name for path in directory.glob("*.bin"))
    if pickled:
        return CheckpointError(
            f"{directory} holds {first_few(pickled)}, but no safetensors file and no pytorch_model.bin.",
            "Rename a single file of weights to pytorch_model.bin, or save the model again.",
        )
    return CheckpointError(
        f"{directory} holds no {SINGLE_FILE} and no {INDEX_FILE}.", "Give the directory of a checkpoint."
    )
