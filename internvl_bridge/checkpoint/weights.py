"""Open the weights of a directory, whatever they are kept in."""

import shlex
from collections.abc import KeysView, Mapping
from dataclasses import replace
from pathlib import Path

from internvl_bridge.checkpoint.byte_ranges import specs_of, target_tensors
from internvl_bridge.checkpoint.dumps.detection import (
    METADATA_FILE,
    PICKLED_INDEX,
    has_distributed_weights,
    has_named_pickled_weights,
    has_pickled_weights,
)
from internvl_bridge.checkpoint.opened_weights import PICKLED, LocatedTensor, OpenedWeights
from internvl_bridge.errors import CheckpointError, first_few
from internvl_bridge.mapping.plan import Plan, TensorSpec, compose, identity
from internvl_bridge.mapping.several_models import IsModel, chosen_model
from internvl_bridge.mapping.wrapped_names import clean_names
from internvl_bridge.planning.output_head import SameBits
from internvl_bridge.stand_ins import CONFIG, INNER
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.consumed import Consumption
from internvl_bridge.storage.file_system import FileSystem
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import INDEX_FILE, has_weights, open_checkpoint
from internvl_bridge.storage.unfinished import check_downloaded
from internvl_bridge.work.progress import nothing

INDEX_FILES = (INDEX_FILE, PICKLED_INDEX, METADATA_FILE)
"""Files that say where tensors are, in all containers."""


def open_weights(
    directory: Path, is_model: IsModel, state_dict: str | None = None, consumption: Consumption | None = None
) -> OpenedWeights:
    """Find every tensor of ``directory``; reads headers only.

    Safetensors files come first, as in transformers; then what ``torch.save`` has written, then a directory of
    torch.distributed.checkpoint: those are read through torch, which is imported only then. If ``directory`` has none
    of these, but one of the directories in it does that trainers make for weights, they are those. ``state_dict`` names
    the model that is meant, where there are several. Raises CheckpointError for what cannot be read safely or
    contradicts itself. ``consumption`` is what an earlier run has deleted of it.
    """
    place = weights_place(directory)
    if consumption is None:
        opened = _opened(place, is_model, state_dict)
    else:
        opened = OpenedWeights(open_checkpoint(place, consumption), None)
    if place != directory:
        opened = replace(opened, remarks=(_on_place(place), *opened.remarks))
    elif opened.container == PICKLED and not has_named_pickled_weights(place):
        remark = f"The weights are those in {opened.checkpoint.shards[0].path.name}, the only file that can hold them."
        opened = replace(opened, remarks=(remark, *opened.remarks))
    check_downloaded(shard.path for shard in opened.checkpoint.shards)
    if opened.state_dict is None:
        opened = _chosen(opened, is_model, state_dict)
    if opened.state_dict is not None:
        remark = f"The weights are those of the state dict {opened.state_dict!r}, as was asked for."
        opened = replace(opened, remarks=(*opened.remarks, remark))
    return _clean(opened, is_model)


def weights_place(directory: Path) -> Path:
    """The directory that holds the weights of ``directory``: itself, or one in it that trainers make for them.

    Raises CheckpointError for several.
    """
    if not directory.is_dir() or has_weights(directory) or has_named_pickled_weights(directory):
        return directory
    if has_distributed_weights(directory):
        return directory
    inner = sorted(path for path in directory.iterdir() if INNER.fullmatch(path.name) and path.is_dir())
    inner = [path for path in inner if _is_place(path)]
    if len(inner) > 1:
        raise CheckpointError(
            f"{directory} holds weights in several directories: {first_few([path.name for path in inner])}. Nothing "
            f"shows which are meant.",
            f"Give one of them: {shlex.quote(str(inner[0]))} --config {shlex.quote(str(directory))}",
        )
    return inner[0] if inner else directory


def _on_place(place: Path) -> str:
    own = f" {CONFIG} there is not used: the one above is." if (place / CONFIG).exists() else ""
    return f"The weights are those in {place.name}.{own}"


def _chosen(opened: OpenedWeights, is_model: IsModel, name: str | None) -> OpenedWeights:
    """``opened`` without the tensors of other models than the one that is called ``name``."""
    keys = _keys(opened)
    if name is None and (is_model(keys) or clean_names(keys, is_model) is not None):
        return opened
    chosen = chosen_model(opened.checkpoint.directory, keys, is_model, name, leaves_out=name is not None)
    if name is None:
        return opened
    assembly = opened.assembly or identity(whole_specs(opened))
    taken = {new: assembly.recipes[old] for old, new in chosen.items()}
    others = sorted({key.partition(".")[0] for key in keys - chosen.keys()})
    stored = {run.key for recipe in taken.values() for run in recipe.runs}
    tensors = {key: tensor for key, tensor in opened.checkpoint.tensors.items() if key in stored}
    return replace(
        opened,
        checkpoint=replace(opened.checkpoint, tensors=tensors),
        assembly=Plan({key: assembly.sources[key] for key in tensors}, taken),
        left_out=(*opened.left_out, *others),
        state_dict=name,
    )


def _clean(opened: OpenedWeights, is_model: IsModel) -> OpenedWeights:
    """``opened`` with the keys of a model, where training wrappers have changed them, and without buffers."""
    names = clean_names(_keys(opened), is_model)
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


def _opened(directory: Path, is_model: IsModel, state_dict: str | None) -> OpenedWeights:
    if not has_weights(directory) and has_pickled_weights(directory):
        from internvl_bridge.checkpoint.dumps.pickled import open_pickled  # imports torch  # noqa: PLC0415

        return open_pickled(directory, is_model, state_dict)
    if not has_weights(directory) and has_distributed_weights(directory):
        from internvl_bridge.checkpoint.dumps.distributed import open_distributed  # imports torch  # noqa: PLC0415

        return open_distributed(directory, is_model, state_dict)
    return OpenedWeights(open_checkpoint(directory), None)


def holds_weights(directory: Path) -> bool:
    """Whether ``directory`` holds a checkpoint in any container, valid or not, or a directory in it does."""
    return _is_place(weights_place(directory))


def _is_place(directory: Path) -> bool:
    return has_weights(directory) or has_pickled_weights(directory) or has_distributed_weights(directory)


def whole_specs(weights: OpenedWeights) -> dict[str, TensorSpec]:
    """The specs of all tensors, put together where they lie in pieces."""
    return specs_of(weights.checkpoint) if weights.assembly is None else weights.assembly.targets


def _keys(weights: OpenedWeights) -> KeysView[str]:
    """Those of :func:`whole_specs`."""
    return (weights.checkpoint.tensors if weights.assembly is None else weights.assembly.recipes).keys()


def tensor_locations(weights: OpenedWeights) -> Mapping[str, LocatedTensor]:
    """Every whole tensor, and where its bytes lie."""
    if weights.assembly is None:
        return weights.checkpoint.tensors
    return dict(target_tensors(weights.assembly, weights.checkpoint))


def same_bits_in(weights: OpenedWeights, files: FileSystem = LOCAL) -> SameBits:
    """Compares two whole tensors of ``weights``, which agree in dtype and shape, bit for bit; read from ``files``."""

    def same_bits(left: str, right: str) -> bool:
        tensors = tensor_locations(weights)
        with FileReader(files) as ours, FileReader(files) as theirs:
            one, other = ours.windows(tensors[left].ranges), theirs.windows(tensors[right].ranges, buffers=2)
            return first_difference(one, other, nothing) is None

    return same_bits


def stored_plan(plan: Plan, weights: OpenedWeights) -> Plan:
    """``plan``, which starts from whole tensors, from those that are stored."""
    if weights.assembly is None:
        return plan
    recipes = {key: weights.assembly.recipes[key] for key in plan.sources}
    return compose(plan, Plan(weights.assembly.sources, recipes))
