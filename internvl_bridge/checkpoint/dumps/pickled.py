"""Open a directory of pickled weights, pytorch_model*.bin, as one checkpoint, or refuse it. Imports torch."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch._subclasses.fake_tensor import FakeTensorMode

from internvl_bridge.checkpoint.dumps.archive import find_tensor, read_archive
from internvl_bridge.checkpoint.dumps.detection import (
    PICKLED_FILE,
    PICKLED_FILES,
    PICKLED_INDEX,
    pickled_file,
)
from internvl_bridge.checkpoint.dumps.nested import ChosenStateDict, chosen_state_dict
from internvl_bridge.checkpoint.opened_weights import PICKLED, OpenedWeights
from internvl_bridge.errors import CheckpointError, first_few
from internvl_bridge.mapping.several_models import IsModel
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.index import check_index, missing_shards, read_index, stale_files, stored_twice
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import Checkpoint, Shard, StoredTensor
from internvl_bridge.storage.stamps import stamp_of

_Choose = Callable[[Path, object], ChosenStateDict]
"""Finds the state dict in the content of a file."""


def open_pickled(directory: Path, is_model: IsModel, state_dict: str | None = None) -> OpenedWeights:
    """Find every tensor of ``directory`` as a byte range of its files; no tensor data is read, no code is run.

    ``is_model`` says whether keys are those of a model, and ``state_dict`` which of several nested ones is meant.
    Raises CheckpointError unless every file holds plain tensors only (beside a nested state dict: plain values,
    which are named in ``left_out``), belongs to the checkpoint, and the index says the same.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory.", "Give the directory of a checkpoint.")
    weight_map, index_metadata = read_index(directory / PICKLED_INDEX, ".bin")
    single = pickled_file(directory) or PICKLED_FILE
    names = sorted(set(weight_map.values())) if weight_map is not None else [single]
    _check_names(directory, names, single if weight_map is None else PICKLED_INDEX)
    shards = tuple(Shard(directory / name, {}, stamp_of(directory / name)) for name in names)
    tensors: dict[str, StoredTensor] = {}
    left_out: dict[str, None] = {}
    crcs: dict[ByteRange, int] = {}
    taken: str | None = None
    fake, choose = FakeTensorMode(), partial(chosen_state_dict, is_model=is_model, name=state_dict)
    for number, name in enumerate(names):
        found = _read_file(directory / name, number, fake, choose)
        for key in found.tensors:
            if key in tensors:
                raise stored_twice(key, tensors[key].data.path, directory / name)
        tensors |= found.tensors
        left_out |= dict.fromkeys(found.chosen.others)
        crcs |= found.crcs
        taken = found.chosen.name
    if weight_map is not None:
        check_index(directory / PICKLED_INDEX, weight_map, {key: names[t.shard] for key, t in tensors.items()})
    checkpoint = Checkpoint(directory, shards, tensors, index_metadata)
    named = state_dict if taken == state_dict else None  # else it is a prefix of keys
    return OpenedWeights(checkpoint, None, tuple(left_out), PICKLED, crcs, state_dict=named)


def open_pickled_file(path: Path) -> OpenedWeights:
    """The tensors of one file that ``torch.save`` has written. Raises CheckpointError as :func:`open_pickled`."""
    shard = Shard(path, {}, stamp_of(path))
    choose = partial(chosen_state_dict, is_model=lambda _: False, name=None)
    found = _read_file(path, 0, FakeTensorMode(), choose)
    return OpenedWeights(Checkpoint(path.parent, (shard,), found.tensors, {}), None, (), PICKLED, found.crcs)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What is in a file: the state dict that was ``chosen``, its ``tensors`` in physical order, and CRCs."""

    chosen: ChosenStateDict
    tensors: dict[str, StoredTensor]
    crcs: dict[ByteRange, int]


def _read_file(path: Path, number: int, fake: FakeTensorMode, choose: _Choose) -> _Contents:
    with FileReader() as reader:
        archive = read_archive(ByteRange(path, 0, path.stat().st_size), reader, fake)
    chosen = choose(path, archive.content)
    stored = {key: find_tensor(archive, key, tensor, number) for key, tensor in chosen.tensors.items()}
    crcs = {ByteRange(path, start, archive.storages[start]): crc for start, crc in archive.crcs.items()}
    return _Contents(chosen, dict(sorted(stored.items(), key=lambda item: item[1].data.offset)), crcs)


def _check_names(directory: Path, names: list[str], owner: str) -> None:
    """Refuse missing files and stale ones; ``owner`` is the file that says which belong to the checkpoint."""
    found = {path.name for path in directory.glob(PICKLED_FILES)}
    there = {path.name for path in directory.iterdir() if path.is_file()}
    if missing := [name for name in names if name not in there]:
        if owner == PICKLED_INDEX:
            raise missing_shards(directory / owner, missing)
        holds = f"holds {first_few(sorted(found))}, but" if found else "holds"
        raise CheckpointError(
            f"{directory} {holds} neither {PICKLED_FILE} nor {PICKLED_INDEX}.",
            f"Rename a single file to {PICKLED_FILE}; restore the index of several.",
        )
    if stale := sorted(found.difference(names)):
        raise stale_files(directory, stale, owner)
