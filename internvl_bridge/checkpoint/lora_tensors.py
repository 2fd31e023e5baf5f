"""The interpreter of plans of adapters: the only place where factors are put together. Imports torch."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import prod

import torch

from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.errors import ContradictionError, UnsupportedModelError
from internvl_bridge.mapping.lora.factors import MERGE, Block, FactorRecipe, Region
from internvl_bridge.mapping.lora.lifting import Columns, Findings, fusions, splits
from internvl_bridge.mapping.lora.stored import Adapter, Matrix
from internvl_bridge.mapping.plan import Plan, Recipe
from internvl_bridge.planning.adapter_plan import AdapterPlan
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import Checkpoint

TensorOf = Callable[[str], torch.Tensor]
"""Gives a tensor of the source by its key."""


def made_tensor(key: str, plan: AdapterPlan, tensor_of: TensorOf) -> torch.Tensor:
    """The tensor ``key`` of a converted adapter. Raises UnsupportedModelError if it could not be exact."""
    packed = plan.packed
    if key in packed.renamed:
        return tensor_of(packed.renamed[key])
    if key in packed.factors:
        return _made(packed.factors[key], tensor_of)
    sources = {parameter: stored for parameter, (stored, _) in plan.adapter.whole.items()}
    return _joined(key, packed.whole[key], sources, tensor_of)


def stored_tensors(checkpoint: Checkpoint) -> TensorOf:
    """Reads the tensors of ``checkpoint`` when they are asked for; keeps the last few."""

    @lru_cache(maxsize=8)
    def tensor_of(key: str) -> torch.Tensor:
        stored = checkpoint.tensors[key]
        data = bytearray()
        with FileReader() as reader:
            for window in reader.windows(stored.ranges):
                data += window
        dtype = TORCH_DTYPES[stored.dtype]
        return (torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)).view(stored.shape)

    return tensor_of


def bytes_of(tensor: torch.Tensor) -> bytearray:
    """The elements of ``tensor``, as files hold them."""
    data = bytearray(tensor.numel() * tensor.element_size())
    if data:
        flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        torch.frombuffer(data, dtype=torch.uint8).copy_(flat)
    return data


def look_at_values(
    adapter: Adapter, plan: Plan, *, tensor_of: TensorOf, ranks: Mapping[Matrix, Sequence[int]]
) -> Findings:
    """What the values of ``adapter`` show, whose base becomes what ``plan`` says.

    ``ranks`` are those of the blocks of a B that was put together from several, where they are known. Elsewhere, every
    column must have elements that are not zero, in the rows of one target only: then there is one way to read it.
    """
    blocks: dict[Matrix, Columns] = {}
    for source, parts in splits(adapter, plan).items():
        lora = adapter.matrices[source]
        b = taken(tensor_of(lora.b.key).detach(), lora.b)
        columns = None if b.is_meta else _block_columns(b, parts, ranks.get(source))
        if columns is not None and not (lora.rows and any(stop == start for start, stop in columns.values())):
            blocks[source] = columns  # a part without columns would lose its vectors
    shared = [
        target
        for target, sources in fusions(adapter, plan).items()
        if _are_equal([adapter.matrices[source].a for source in sources], tensor_of)
    ]
    return Findings(blocks, frozenset(shared))


def _are_equal(regions: Sequence[Region], tensor_of: TensorOf) -> bool:
    first, *others = (taken(tensor_of(region.key).detach(), region) for region in regions)
    return not first.is_meta and all(torch.equal(first, other) for other in others)


def _block_columns(
    b: torch.Tensor, parts: Mapping[Matrix, Sequence[tuple[int, int]]], ranks: Sequence[int] | None
) -> Columns | None:
    used = torch.stack(
        [torch.stack([(b[start:stop] != 0).any(0) for start, stop in rows]).any(0) for rows in parts.values()]
    )
    if ranks is None:
        owners = used.to(torch.int8).argmax(0)
        is_unique = bool((used.sum(0) == 1).all()) and not bool((owners.diff() < 0).any())
    else:
        owners = torch.tensor([number for number, rank in enumerate(ranks) for _ in range(rank)], device=b.device)
        is_unique = len(owners) == b.shape[1] and len(ranks) == len(parts)
    numbers = torch.arange(len(parts), device=b.device)
    if not is_unique or bool((used & (owners != numbers[:, None])).any()):
        return None
    ends = [int((owners <= number).sum()) for number in range(len(parts))]
    return dict(zip(parts, zip([0, *ends[:-1]], ends, strict=True), strict=True))


def _made(recipe: FactorRecipe, tensor_of: TensorOf) -> torch.Tensor:
    example = tensor_of(recipe.blocks[0].source.key)
    if _is_untouched(recipe, example):
        return example if example.shape == recipe.shape else example.view(recipe.shape)
    made = torch.zeros(recipe.matrix, dtype=example.dtype, device=example.device)
    for block in recipe.blocks:
        part = _scaled(taken(tensor_of(block.source.key).detach(), block.source), block)
        taken(made, block.target).copy_(part)
    return made.view(recipe.shape)


def _is_untouched(recipe: FactorRecipe, tensor: torch.Tensor) -> bool:
    """Whether the target is ``tensor``, the source of its first block, as it is."""
    source, target = recipe.blocks[0].source, recipe.blocks[0].target
    is_whole = source.shape == target.shape == recipe.matrix and source.transposed == target.transposed
    return is_whole and tensor.numel() == prod(recipe.shape) and not recipe.blocks[0].exponent


def taken(tensor: torch.Tensor, region: Region) -> torch.Tensor:
    """The matrix that ``region`` takes of ``tensor``, a view of it."""
    matrix = tensor.reshape(tensor.shape[0], -1)
    part = matrix[region.rows[0] : region.rows[1], region.columns[0] : region.columns[1] : region.step]
    return part.t() if region.transposed else part


def _scaled(part: torch.Tensor, block: Block) -> torch.Tensor:
    if not block.exponent:
        return part
    scaled = part * 2.0**block.exponent
    if not torch.equal(scaled * 2.0**-block.exponent, part):
        raise UnsupportedModelError(
            f"{block.source.key} has values that are too small to be scaled by 2 to the {block.exponent} exactly.",
            MERGE,
        )
    return scaled


def _joined(key: str, recipe: Recipe, stored: Mapping[str, str], tensor_of: TensorOf) -> torch.Tensor:
    """A parameter that the adapter replaces, of the runs of its own tensors."""
    tensors = {run.key: tensor_of(stored[run.key]).detach() for run in recipe.runs}
    if len({tensor.dtype for tensor in tensors.values()}) > 1:
        raise ContradictionError(
            f"{key} is made of tensors of different dtypes.", "Save the adapter again with one dtype for all of them."
        )
    parts = [tensors[run.key].reshape(-1)[run.start : run.stop] for run in recipe.runs]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(recipe.spec.shape)
