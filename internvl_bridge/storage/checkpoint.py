"""Open a directory of safetensors files as one checkpoint, or refuse it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.header import read_header
from internvl_bridge.strict_json import parse_json_object

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_LARGEST_INDEX = 100_000_000


@dataclass(frozen=True, slots=True)
class Piece:
    """The bytes ``[offset, offset + length)`` of a file."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Shard:
    """One safetensors file of a checkpoint, and the metadata in its header."""

    path: Path
    metadata: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor on disk: safetensors dtype, shape, and where its bytes are.

    ``shard`` is the index of its file in the checkpoint.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    data: Piece


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

    Symbolic links (a hub cache) are followed. Raises CheckpointError unless every safetensors file
    belongs to the checkpoint, every tensor is in exactly one of them, and the index says the same.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory.", "Give the directory of a checkpoint.")
    weight_map, index_metadata = _read_index(directory / INDEX_FILE)
    names = sorted(set(weight_map.values())) if weight_map is not None else [SINGLE_FILE]
    _check_names(directory, names, indexed=weight_map is not None)
    shards: list[Shard] = []
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        path = directory / name
        header = read_header(path)
        for key, entry in header.entries.items():
            if key in tensors:
                raise CheckpointError(
                    f"{key} is both in {shards[tensors[key].shard].path} and in {path}.",
                    "Remove the file that is stale.",
                )
            piece = Piece(path, header.data_start + entry.start, entry.stop - entry.start)
            tensors[key] = StoredTensor(entry.dtype, entry.shape, len(shards), piece)
        shards.append(Shard(path, header.metadata))
    if weight_map is not None:
        _check_index(directory / INDEX_FILE, weight_map, {k: shards[t.shard].path.name for k, t in tensors.items()})
    return Checkpoint(directory, tuple(shards), tensors, index_metadata)


def has_weights(directory: Path) -> bool:
    """Whether ``directory`` holds a safetensors checkpoint, valid or not."""
    return (directory / INDEX_FILE).exists() or (directory / SINGLE_FILE).exists()


def _read_index(path: Path) -> tuple[dict[str, str] | None, dict[str, Any]]:
    if not path.is_file():
        return None, {}

    def malformed(reason: str) -> CheckpointError:
        return CheckpointError(f"{path} is not a valid index: {reason}.", "Save or download it again.")

    if path.stat().st_size > _LARGEST_INDEX:
        raise malformed(f"it has more than {_LARGEST_INDEX} bytes")
    index = parse_json_object(path.read_bytes(), malformed)
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(weight_map, dict) or not weight_map:
        raise malformed("it needs a 'weight_map' object that is not empty")
    if not isinstance(metadata, dict):
        raise malformed("its 'metadata' is not an object")
    for name in {str(name): name for name in weight_map.values()}.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name:
            raise malformed(f"it places tensors in {name!r}, which is not a safetensors file beside it")
    return weight_map, metadata


def _check_names(directory: Path, names: Iterable[str], *, indexed: bool) -> None:
    found = {path.name for path in directory.glob("*.safetensors")}
    wanted = set(names)
    found = {name for name in found if (directory / name).is_file()}
    if missing := sorted(wanted - found):
        if indexed:
            raise CheckpointError(
                f"{directory / INDEX_FILE} names {_listed(missing)}, which is not there.",
                "The checkpoint is incomplete: save or download it again.",
            )
        raise _no_weights(directory, sorted(found))
    if stale := sorted(found - wanted):
        owner = INDEX_FILE if indexed else SINGLE_FILE
        raise CheckpointError(
            f"{directory} holds {_listed(stale)}, which does not belong to the checkpoint of {owner}.",
            "Move the stale files away; readers differ in which of them they would load.",
        )


def _no_weights(directory: Path, found: list[str]) -> CheckpointError:
    if any(name.startswith("adapter_") for name in found):
        return CheckpointError(
            f"{directory} holds an adapter ({_listed(found)}), not a whole model.",
            "Merge it into its base model (with peft: merge_and_unload), save that, and convert what was saved.",
        )
    if found:
        return CheckpointError(
            f"{directory} holds {_listed(found)}, but neither {SINGLE_FILE} nor {INDEX_FILE}.",
            f"Rename a single file to {SINGLE_FILE}; restore the index of several.",
        )
    pickled = sorted(path.name for path in directory.glob("*.bin"))
    if pickled:
        return CheckpointError(
            f"{directory} holds {_listed(pickled)} but no safetensors file; this program never unpickles.",
            "Load the model where you trust it, and save it with safe_serialization=True.",
        )
    return CheckpointError(
        f"{directory} holds no {SINGLE_FILE} and no {INDEX_FILE}.", "Give the directory of a checkpoint."
    )


def _check_index(path: Path, weight_map: Mapping[str, str], stored: Mapping[str, str]) -> None:
    if weight_map == stored:
        return
    key = min(key for key in weight_map.keys() | stored.keys() if weight_map.get(key) != stored.get(key))
    says, truth = weight_map.get(key, "no file"), stored.get(key, "no file")
    raise CheckpointError(
        f"{path} places {key} in {says}, but it is in {truth}.",
        "The index and the shards are of different checkpoints: save or download it again.",
    )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
