"""Index files: which shard of a checkpoint holds which tensor, in safetensors and in pickled checkpoints alike."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CheckpointError, first_few, shown
from internvl_bridge.strict_json import parse_json_object, without_mark

_LARGEST_INDEX = 100_000_000
_NUMBERED = re.compile(r"(.*)-([0-9]{5})-of-([0-9]{5})\.[a-z]+")


def read_index(path: Path, suffix: str) -> tuple[dict[str, str] | None, dict[str, Any]]:
    """The weight map of the index ``path``, None if it is not there, and its metadata.

    Raises CheckpointError unless every tensor is in a file beside the index whose name ends with ``suffix``.
    """
    if not os.path.lexists(path):
        return None, {}

    def malformed(reason: str) -> CheckpointError:
        return CheckpointError(f"{path} is not a valid index: {reason}.", "Save or download it again.")

    if not path.is_file():
        raise malformed("it is not a file that can be read")
    if path.stat().st_size > _LARGEST_INDEX:
        raise malformed(f"it has more than {_LARGEST_INDEX} bytes")
    index = parse_json_object(without_mark(path.read_bytes()), malformed)
    weight_map, metadata = index.get("weight_map"), index.get("metadata", {})
    if not isinstance(weight_map, dict) or not weight_map:
        raise malformed("it needs a 'weight_map' object that is not empty")
    if not isinstance(metadata, dict):
        raise malformed("its 'metadata' is not an object")
    for name in {str(name): name for name in weight_map.values()}.values():
        if not isinstance(name, str) or not name.endswith(suffix) or Path(name).name != name or "\0" in name:
            raise malformed(f"it places tensors in {shown(name)}, which is not a {suffix} file beside it")
    return weight_map, metadata


def check_index(path: Path, weight_map: Mapping[str, str], stored: Mapping[str, str]) -> None:
    """Raise CheckpointError unless every tensor is ``stored`` in the file that the index ``path`` names."""
    if weight_map == stored:
        return
    key = min(key for key in weight_map.keys() | stored.keys() if weight_map.get(key) != stored.get(key))
    says, truth = weight_map.get(key, "no file"), stored.get(key, "no file")
    raise CheckpointError(
        f"{path} places {key} in {says}, but it is in {truth}.",
        "The index and the shards are of different checkpoints: save or download it again.",
    )


def missing_shards(path: Path, missing: Sequence[str]) -> CheckpointError:
    """The refusal of an index ``path`` that names files that do not exist, or are not files."""
    # Path.exists raises if a name is too long.
    if others := [name for name in missing if os.path.exists(path.parent / name)]:  # noqa: PTH110
        return CheckpointError(
            f"{path} names {first_few(others)}, which is there, but is not a file.",
            "Put the file itself in its place.",
        )
    return CheckpointError(
        f"{path} names {first_few(missing)}, which is not there.",
        "The checkpoint is incomplete: save or download it again.",
    )


def complete_set(names: Collection[str]) -> list[str] | None:
    """The one complete set of numbered shards among ``names``, in order; None if there is none, or several."""
    numbered = [(found, name) for name in names if (found := _NUMBERED.fullmatch(name))]
    sets: dict[str, dict[int, str]] = {}
    for found, name in numbered:
        sets.setdefault(f"{found[1]}-of-{found[3]}", {})[int(found[2])] = name
    complete = [
        [shards[number] for number in sorted(shards)]
        for name, shards in sets.items()
        if shards.keys() == set(range(1, int(name.rpartition("-of-")[2]) + 1))
    ]
    return complete[0] if len(complete) == 1 else None


def stale_files(directory: Path, stale: Sequence[str], owner: str) -> CheckpointError:
    """The refusal of files beside those that ``owner``, an index or a single file, knows."""
    return CheckpointError(
        f"{directory} holds {first_few(stale)}, which does not belong to the checkpoint of {owner}.",
        "Move the stale files away; readers differ in which of them they would load.",
    )


def stored_twice(key: str, first: Path, second: Path) -> CheckpointError:
    """The refusal of a tensor that two files hold."""
    return CheckpointError(
        f"{key} is both in {first} and in {second}, with different numbers, and no index says which one counts.",
        "Restore the index, or move the file away that is stale.",
    )
