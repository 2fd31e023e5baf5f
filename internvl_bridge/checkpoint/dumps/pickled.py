"""Open a directory of pickled weights, pytorch_model*.bin, as one checkpoint, or refuse it. Imports torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from internvl_bridge.checkpoint.dumps.archive import find_tensor, read_archive
from internvl_bridge.checkpoint.dumps.detection import PICKLED_FILE, PICKLED_FILES, PICKLED_INDEX
from internvl_bridge.checkpoint.opened_weights import PICKLED, OpenedWeights
from internvl_bridge.errors import CheckpointError, first_few, shown
from internvl_bridge.stand_ins import other_directory
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.index import check_index, missing_shards, read_index, stale_files, stored_twice
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import Checkpoint, Shard, StoredTensor
from internvl_bridge.storage.stamps import stamp_of

_WRAPPERS = ("state_dict", "model", "module")
"""Under what trainers put the state dict, beside optimizers and counters."""


def open_pickled(directory: Path) -> OpenedWeights:
    """Find every tensor of ``directory`` as a byte range of its files; no tensor data is read, no code is run.

    Raises CheckpointError unless every file holds plain tensors only (beside a nested state dict: plain values,
    which are named in ``left_out``), belongs to the checkpoint, and the index says the same.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory.", "Give the directory of a checkpoint.")
    weight_map, index_metadata = read_index(directory / PICKLED_INDEX, ".bin")
    names = sorted(set(weight_map.values())) if weight_map is not None else [PICKLED_FILE]
    _check_names(directory, names, PICKLED_FILE if weight_map is None else PICKLED_INDEX)
    shards = tuple(Shard(directory / name, {}, stamp_of(directory / name)) for name in names)
    tensors: dict[str, StoredTensor] = {}
    left_out: dict[str, None] = {}
    crcs: dict[ByteRange, int] = {}
    fake = FakeTensorMode()
    for number, name in enumerate(names):
        stored, others, stated = _read_file(directory / name, number, fake)
        for key in stored:
            if key in tensors:
                raise stored_twice(key, tensors[key].data.path, directory / name)
        tensors |= stored
        left_out |= dict.fromkeys(others)
        crcs |= stated
    if weight_map is not None:
        check_index(directory / PICKLED_INDEX, weight_map, {key: names[t.shard] for key, t in tensors.items()})
    return OpenedWeights(Checkpoint(directory, shards, tensors, index_metadata), None, tuple(left_out), PICKLED, crcs)


def _read_file(
    path: Path, number: int, fake: FakeTensorMode
) -> tuple[dict[str, StoredTensor], list[str], dict[ByteRange, int]]:
    """The tensors of the file in physical order, the names of what it holds beside its state dict, and its CRCs."""
    with FileReader() as reader:
        archive = read_archive(ByteRange(path, 0, path.stat().st_size), reader, fake)
    state, others = _state_dict(path, archive.content)
    stored = {key: find_tensor(archive, key, tensor, number) for key, tensor in state.items()}
    crcs = {ByteRange(path, start, archive.storages[start]): crc for start, crc in archive.crcs.items()}
    return dict(sorted(stored.items(), key=lambda item: item[1].data.offset)), others, crcs


def _state_dict(path: Path, content: object) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The state dict, which may be the only wrapped one in ``content``, and the names beside it."""
    if not isinstance(content, dict):
        raise _no_state_dict(path, f"holds {_article(content)} instead of a state dict")
    wrapped = [name for name in _WRAPPERS if isinstance(content.get(name), dict)]
    if len(wrapped) > 1:
        raise _no_state_dict(path, f"holds more than one state dict: {first_few(wrapped)}")
    state: Mapping[Any, Any] = content[wrapped[0]] if wrapped else content
    others = [str(name)[:80] for name in content if name not in wrapped] if wrapped else []
    if not state:
        raise _no_state_dict(path, "holds no tensors")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise _no_state_dict(path, f"holds {_article(value)} at {shown(key)}, where a tensor should be")
    return dict(state), others


def _no_state_dict(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path} {problem}.", "Save the weights alone: torch.save(model.state_dict(), ...).")


def _article(value: object) -> str:
    return "a tensor" if isinstance(value, torch.Tensor) else f"a value of type {type(value).__name__}"


def _check_names(directory: Path, names: list[str], owner: str) -> None:
    """Refuse missing files and stale ones; ``owner`` is the file that says which belong to the checkpoint."""
    found = {path.name for path in directory.glob(PICKLED_FILES)}
    there = {path.name for path in directory.iterdir() if path.is_file()}
    if missing := [name for name in names if name not in there]:
        if owner == PICKLED_INDEX:
            raise missing_shards(directory / owner, missing)
        if (directory / PICKLED_FILE).is_dir() and (other := other_directory(directory)):
            raise other
        holds = f"holds {first_few(sorted(found))}, but" if found else "holds"
        raise CheckpointError(
            f"{directory} {holds} neither {PICKLED_FILE} nor {PICKLED_INDEX}.",
            f"Rename a single file to {PICKLED_FILE}; restore the index of several.",
        )
    if stale := sorted(found.difference(names)):
        raise stale_files(directory, stale, owner)
