"""A plan over elements becomes byte ranges of files: the disk interpreter of plans."""

from collections.abc import Iterator
from functools import cache

from internvl_bridge.errors import ContradictionError
from internvl_bridge.mapping.plan import Plan, Recipe, Run, TensorSpec
from internvl_bridge.storage.byte_range import ByteRange, coalesced
from internvl_bridge.storage.header import byte_length
from internvl_bridge.storage.output_shards import ShardContents, TargetTensor
from internvl_bridge.storage.source_shards import Checkpoint, StoredTensor


def specs_of(checkpoint: Checkpoint) -> dict[str, TensorSpec]:
    """The specs of all tensors; equal ones are one object, as a model has few shapes and many tensors."""
    spec = cache(TensorSpec)
    return {key: spec(tensor.dtype, tensor.shape) for key, tensor in checkpoint.tensors.items()}


def target_tensors(plan: Plan, source: Checkpoint) -> Iterator[tuple[str, TargetTensor]]:
    """Every target of ``plan``, and where its bytes lie in ``source``."""
    for key, recipe in plan.recipes.items():
        yield key, target_tensor(recipe, source)


def in_source_shards(plan: Plan, source: Checkpoint) -> list[ShardContents]:
    """The targets of ``plan`` in the shards and the physical order of ``source``.

    A target that gathers several sources stands where its first source stood. Two targets can be made of the same
    source (a tied output head). They stand in the order of their names.
    """
    started: dict[str, list[str]] = {}
    for key, recipe in plan.recipes.items():
        started.setdefault(recipe.runs[0].key, []).append(key)
    shards: list[dict[str, TargetTensor]] = [{} for _ in source.shards]
    for stored, tensor in source.tensors.items():
        keys = started.get(stored, [])
        if len(keys) > 1:
            keys.sort(key=lambda key: (plan.recipes[key].runs[0].start, key))
        for key in keys:
            shards[tensor.shard][key] = target_tensor(plan.recipes[key], source)
    return [
        ShardContents(tensors, {**shard.metadata, "format": "pt"})
        for shard, tensors in zip(source.shards, shards, strict=True)
        if tensors
    ]


def target_tensor(recipe: Recipe, source: Checkpoint) -> TargetTensor:
    """The target that ``recipe`` makes, and where its bytes lie in ``source``."""
    dtype, shape = recipe.spec
    first = source.tensors[recipe.runs[0].key]
    if len(recipe.runs) == 1 and first.shape == shape and first.data.length:  # a whole one, as nearly all are
        return TargetTensor(dtype, shape, first.ranges)
    return TargetTensor(dtype, shape, coalesced(_byte_range(run, source.tensors[run.key]) for run in recipe.runs))


def _byte_range(run: Run, tensor: StoredTensor) -> ByteRange:
    length = byte_length(tensor.dtype, run.stop - run.start)
    if length == tensor.data.length:
        return tensor.data
    start = byte_length(tensor.dtype, run.start)
    if start is None or length is None:
        raise ContradictionError(
            f"{run.key} has dtype {tensor.dtype}, and its parts do not start at whole bytes.",
            "Convert the checkpoint in a dtype of at least one byte per element.",
        )
    return ByteRange(tensor.data.path, tensor.data.offset + start, length)
