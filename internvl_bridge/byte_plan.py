"""A plan over elements becomes byte ranges of files: the disk interpreter of plans."""

from collections.abc import Mapping

from internvl_bridge.errors import ContradictionError
from internvl_bridge.mapping.plan import Plan, Recipe, Run
from internvl_bridge.storage.checkpoint import Checkpoint, Piece, StoredTensor
from internvl_bridge.storage.header import byte_length
from internvl_bridge.storage.layout import ShardContents, TargetTensor, coalesced


def target_tensors(plan: Plan, source: Checkpoint) -> dict[str, TargetTensor]:
    """Where the bytes of every target of ``plan`` lie in ``source``."""
    return {key: _target(recipe, source.tensors) for key, recipe in plan.recipes.items()}


def in_source_shards(
    plan: Plan, source: Checkpoint, targets: Mapping[str, TargetTensor]
) -> list[ShardContents]:
    """``targets`` in the shards and the physical order of ``source``.

    A target that gathers several sources stands where its first one stood.
    """
    position = {key: index for index, key in enumerate(source.tensors)}
    places: list[tuple[int, int, str]] = []
    for key, recipe in plan.recipes.items():
        first = recipe.runs[0]
        places.append((position[first.key], first.start, key))
    shards: list[dict[str, TargetTensor]] = [{} for _ in source.shards]
    keys = list(source.tensors)
    for index, _, key in sorted(places):
        shards[source.tensors[keys[index]].shard][key] = targets[key]
    return [
        ShardContents(tensors, {"format": "pt", **shard.header.metadata})
        for shard, tensors in zip(source.shards, shards, strict=True)
        if tensors
    ]


def _target(recipe: Recipe, tensors: Mapping[str, StoredTensor]) -> TargetTensor:
    pieces = coalesced(_piece(run, tensors[run.key]) for run in recipe.runs)
    return TargetTensor(recipe.spec.dtype, recipe.spec.shape, pieces)


def _piece(run: Run, tensor: StoredTensor) -> Piece:
    start, length = byte_length(tensor.dtype, run.start), byte_length(tensor.dtype, run.stop - run.start)
    if start is None or length is None:
        raise ContradictionError(
            f"{run.key} has dtype {tensor.dtype}, and its parts do not start at whole bytes.",
            "Convert the checkpoint in a dtype of at least one byte per element.",
        )
    return Piece(tensor.data.path, tensor.data.offset + start, length)
