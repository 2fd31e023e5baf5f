"""Open the weights of a directory, whatever they are kept in."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from internvl_bridge.checkpoint.byte_ranges import specs_of, target_tensors
from internvl_bridge.checkpoint.dumps.detection import (
    METADATA_FILE,
    PICKLED_INDEX,
    has_distributed_weights,
    has_pickled_weights,
)
from internvl_bridge.checkpoint.opened_weights import LocatedTensor, OpenedWeights
from internvl_bridge.mapping.plan import Plan, TensorSpec, compose, identity
from internvl_bridge.mapping.wrapped_names import clean_names
from internvl_bridge.planning.output_head import SameBits
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import INDEX_FILE, has_weights, open_checkpoint
from internvl_bridge.storage.unfinished import check_downloaded
from internvl_bridge.work.progress import nothing

INDEX_FILES = (INDEX_FILE, PICKLED_INDEX, METADATA_FILE)
"""Files that say where tensors are, in all containers."""

IsModel = Callable[[Collection[str]], bool]
"""Whether keys are those of a model, and not of something that a trainer keeps beside it."""


def open_weights(directory: Path, is_model: IsModel) -> OpenedWeights:
    """Find every tensor of ``directory``; reads headers only.

    Safetensors files come first, as in transformers; then ``pytorch_model*.bin``, then a directory of
    torch.distributed.checkpoint: those are read through torch, which is imported only then. Raises
    CheckpointError for what cannot be read safely or contradicts itself.
    """
    opened = _opened(directory, is_model)
    check_downloaded(shard.path for shard in opened.checkpoint.shards)
    return _clean(opened, is_model)


def _clean(opened: OpenedWeights, is_model: IsModel) -> OpenedWeights:
    """``opened`` with the keys of a model, where training wrappers have changed them, and without buffers."""
    names = clean_names(whole_specs(opened).keys(), is_model)
    if names is None:
        return opened
    assembly = opened.assembly or identity(whole_specs(opened))
    recipes = {new: assembly.recipes[old] for old, new in names.renamed.items()}
    return replace(
        opened,
        assembly=Plan(assembly.sources, recipes),
        left_out=(*opened.left_out, *names.left_out),
        remarks=(*opened.remarks, *names.remarks),
    )


def _opened(directory: Path, is_model: IsModel) -> OpenedWeights:
    if not has_weights(directory) and has_pickled_weights(directory):
        from internvl_bridge.checkpoint.dumps.pickled import open_pickled  # imports torch  # noqa: PLC0415

        return open_pickled(directory)
    if not has_weights(directory) and has_distributed_weights(directory):
        from internvl_bridge.checkpoint.dumps.distributed import open_distributed  # imports torch  # noqa: PLC0415

        return open_distributed(directory, is_model)
    return OpenedWeights(open_checkpoint(directory), None)


def holds_weights(directory: Path) -> bool:
    """Whether ``directory`` holds a checkpoint in any container, valid or not."""
    return has_weights(directory) or has_pickled_weights(directory) or has_distributed_weights(directory)


def whole_specs(weights: OpenedWeights) -> dict[str, TensorSpec]:
    """The specs of all tensors, put together where they lie in pieces."""
    return specs_of(weights.checkpoint) if weights.assembly is None else weights.assembly.targets


def tensor_locations(weights: OpenedWeights) -> Mapping[str, LocatedTensor]:
    """Every whole tensor, and where its bytes lie."""
    if weights.assembly is None:
        return weights.checkpoint.tensors
    return dict(target_tensors(weights.assembly, weights.checkpoint))


def same_bits_in(weights: OpenedWeights) -> SameBits:
    """Compares two whole tensors of ``weights``, which agree in dtype and shape, bit for bit."""

    def same_bits(left: str, right: str) -> bool:
        tensors = tensor_locations(weights)
        with FileReader() as ours, FileReader() as theirs:
            one, other = ours.windows(tensors[left].ranges), theirs.windows(tensors[right].ranges, buffers=2)
            return first_difference(one, other, nothing) is None

    return same_bits


def stored_plan(plan: Plan, weights: OpenedWeights) -> Plan:
    """``plan``, which starts from whole tensors, from those that are stored."""
    if weights.assembly is None:
        return plan
    recipes = {key: weights.assembly.recipes[key] for key in plan.sources}
    return compose(plan, Plan(weights.assembly.sources, recipes))
