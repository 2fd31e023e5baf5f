"""Open a directory of torch.distributed.checkpoint as one checkpoint, or refuse it. Imports torch."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from internvl_bridge.checkpoint.dumps.archive import dtype_name, find_tensor, read_archive
from internvl_bridge.checkpoint.dumps.boxes import Box, fits, runs_in, tiled
from internvl_bridge.checkpoint.dumps.detection import METADATA_FILE
from internvl_bridge.checkpoint.dumps.distributed_metadata import (
    CONSOLIDATE,
    Chunk,
    ChunkedTensor,
    Contents,
    chunked,
    malformed,
    read_metadata,
)
from internvl_bridge.checkpoint.opened_weights import DISTRIBUTED, OpenedWeights
from internvl_bridge.errors import CheckpointError
from internvl_bridge.mapping.plan import Plan, Recipe, TensorSpec, whole
from internvl_bridge.mapping.several_models import IsModel, chosen_model
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import Checkpoint, Shard, StoredTensor
from internvl_bridge.storage.stamps import stamp_of

_MOST_RUNS = 4_000_000
"""Runs of elements in a whole checkpoint; each takes some 100 bytes of memory, and twice that for a while."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A stored part of the tensor whose key is ``tensor``: its own spec, its box and its archive."""

    spec: TensorSpec
    tensor: str
    chunk: Chunk


def open_distributed(directory: Path, is_model: IsModel, state_dict: str | None = None) -> OpenedWeights:
    """Find every chunk of the model in ``directory`` as a byte range of its files; no tensor data is read.

    ``is_model`` says whether keys are those of a model. The shortest prefix of keys for which it is true is removed.
    Keys with another prefix are left out, unless they are those of another model: then ``state_dict`` must be the
    prefix of the one that is meant. If there is no such prefix, all tensors are taken as they are.

    Raises CheckpointError unless the chunks tile every tensor, and lie where ``.metadata`` says, as it says.
    """
    path = directory / METADATA_FILE
    if not path.is_file():
        raise CheckpointError(f"{directory} holds no {METADATA_FILE}.", "Give the directory that rank 0 has finished.")
    contents = read_metadata(path)
    if not contents.tensors:
        raise CheckpointError(f"{path} lists no tensors.", "Give the directory in which the model's weights are.")
    chosen = chosen_model(directory, contents.tensors, is_model, state_dict)
    tensors = {name: _tensor(contents, key) for key, name in chosen.items()}
    parts = _parts(path, tensors)
    assembly = None if parts.keys() == tensors.keys() else _assembly(path, tensors, parts)
    checkpoint, left_out = _checkpoint(directory, parts), _left_out(contents, chosen)
    return OpenedWeights(checkpoint, assembly, left_out, DISTRIBUTED, state_dict=state_dict)


def _left_out(contents: Contents, chosen: Collection[str]) -> tuple[str, ...]:
    """First segments of what is not a tensor of the model; whole keys where the model's keys start the same way."""
    taken = {key.partition(".")[0] for key in chosen}
    others = [*(key for key in contents.tensors if key not in chosen), *contents.others]
    firsts = {key: key.partition(".")[0] for key in others}
    return tuple(sorted({key if first in taken else first for key, first in firsts.items()}))


def _tensor(contents: Contents, key: str) -> ChunkedTensor:
    """The tensor ``key`` with the chunks that matter: those with elements, or any one if there are none."""
    tensor = chunked(contents, key)
    for chunk in tensor.chunks:
        if not fits(chunk.box, tensor.shape):
            raise malformed(contents.path, f"the chunk {list(chunk.box.offsets)} of {key} is not within the tensor")
    filled = tuple(chunk for chunk in tensor.chunks if chunk.box.elements) or tensor.chunks[:1]
    if not filled:
        raise malformed(contents.path, f"{key} has no chunk")
    return ChunkedTensor(tensor.dtype, tensor.shape, filled)


def _parts(path: Path, tensors: Mapping[str, ChunkedTensor]) -> dict[str, _Part]:
    """What is to be found of each tensor, by keys of chunks: the tensor's where it is one chunk."""
    runs = 0
    parts: dict[str, _Part] = {}
    for key, tensor in tensors.items():
        dtype = dtype_name(path, key, tensor.dtype)
        runs += sum(runs_in(chunk.box, tensor.shape) for chunk in tensor.chunks)
        if runs > _MOST_RUNS:
            raise CheckpointError(
                f"{path.parent} is cut into more than {_MOST_RUNS} runs of elements, the last of them in {key}.",
                CONSOLIDATE,
            )
        for chunk in tensor.chunks:
            is_whole = chunk.box.sizes == tensor.shape or not chunk.box.elements
            name = key if is_whole else f"{key}[{','.join(map(str, chunk.box.offsets))}]"
            if name in parts:
                raise malformed(path, f"{name} is stored twice")
            parts[name] = _Part(TensorSpec(dtype, tensor.shape if is_whole else chunk.box.sizes), key, chunk)
    return parts


def _assembly(path: Path, tensors: Mapping[str, ChunkedTensor], parts: Mapping[str, _Part]) -> Plan:
    """The plan from chunks to whole tensors."""
    boxes: dict[str, dict[str, Box]] = {key: {} for key in tensors}
    for name, part in parts.items():
        boxes[part.tensor][name] = part.chunk.box
    recipes = {}
    for key, tensor in tensors.items():
        if key in parts:
            recipes[key] = whole(key, parts[key].spec)
        else:
            runs = tiled(tensor.shape, boxes[key], partial(_not_tiled, path, key))
            recipes[key] = Recipe(TensorSpec(dtype_name(path, key, tensor.dtype), tensor.shape), runs)
    return Plan({name: part.spec for name, part in parts.items()}, recipes)


def _not_tiled(path: Path, key: str, reason: str) -> CheckpointError:
    return malformed(path, f"the chunks of {key} do not make up the tensor: {reason}")


def _checkpoint(directory: Path, parts: Mapping[str, _Part]) -> Checkpoint:
    """Every chunk where its archive holds it, in physical order."""
    paths = sorted({part.chunk.archive.path for part in parts.values()})
    numbers = {path: number for number, path in enumerate(paths)}
    shards = tuple(Shard(path, {}, stamp_of(path)) for path in paths)  # before they are read, which can take minutes
    ordered = sorted(parts, key=lambda name: (parts[name].chunk.archive.path, parts[name].chunk.archive.offset))
    fake = FakeTensorMode()
    with FileReader() as reader:
        stored = {
            name: _stored(name, parts[name], numbers[parts[name].chunk.archive.path], reader, fake) for name in ordered
        }
    for before, name in pairwise(ordered):
        first, second = parts[before].chunk.archive, parts[name].chunk.archive
        if first.path == second.path and first.offset + first.length > second.offset:
            raise malformed(
                directory / METADATA_FILE, f"it places {name} and {before} in the same bytes of {first.path}"
            )
    return Checkpoint(directory, shards, stored, {})


def _stored(name: str, part: _Part, shard: int, reader: FileReader, fake: FakeTensorMode) -> StoredTensor:
    """The chunk ``name``, found in its archive, which must hold exactly what .metadata says."""
    byte_range = part.chunk.archive
    if not part.spec.elements:
        return StoredTensor(part.spec.dtype, part.spec.shape, shard, ByteRange(byte_range.path, byte_range.offset, 0))
    archive = read_archive(byte_range, reader, fake)
    tensor = archive.content
    if not isinstance(tensor, torch.Tensor):
        raise _contradiction(name, byte_range.path, f"a value of type {type(tensor).__name__}", part.spec)
    stored = find_tensor(archive, name, tensor, shard)
    if TensorSpec(stored.dtype, stored.shape) != part.spec:
        raise _contradiction(name, byte_range.path, f"{stored.dtype} {list(stored.shape)}", part.spec)
    return stored


def _contradiction(name: str, path: Path, found: str, spec: TensorSpec) -> CheckpointError:
    return CheckpointError(
        f"{path} holds {found} for {name}, and {METADATA_FILE} says {spec.dtype} {list(spec.shape)}.",
        "The files are of different checkpoints: save or copy the directory again.",
    )
