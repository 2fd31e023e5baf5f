"""Refuse to delete a source as it is converted, where that would lose anything, or free nothing."""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.opened_weights import SAFETENSORS
from internvl_bridge.checkpoint.weights import stored_plan, weights_place, whole_specs
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.errors import CheckpointError, OptionError, OutputError, first_few
from internvl_bridge.planning.tensor_plan import ModelPlan
from internvl_bridge.storage.consumed import Consumption
from internvl_bridge.storage.header import read_start
from internvl_bridge.storage.output_place import check_free
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.source_shards import Shard

_WITHOUT = "Convert without --consume."


def check_consuming(source: Path, given: Mapping[str, Path], options: Options, execution: Execution) -> None:
    """Raise OptionError for choices that do not go together with deleting ``source``; ``given`` are directories."""
    if not execution.verify:
        raise OptionError("--consume deletes what was read back and compared only.", "Leave out --no-verify.")
    if options.link is not None:
        raise OptionError("--link lets the output have files that --consume would delete.", "Leave out one of them.")
    if execution.stream:
        raise OptionError("--stream keeps no copy of the source that --consume could delete.", "Leave out --consume.")
    if execution.overwrite:
        raise OptionError("--consume does not go together with --overwrite.", "Remove the old output yourself before.")
    home = Path(os.path.realpath(source))
    for name in ("reference", "tokenizer", "fill_from"):
        place = Path(os.path.realpath(given[name])) if name in given else None
        if place is not None and home in (place, *place.parents):
            flag = f"--{name.replace('_', '-')}"
            raise OptionError(
                f"{flag} {given[name]} lies in the source, of which --consume deletes files.",
                f"Put it elsewhere, or leave out {flag}.",
            )
    if source.is_symlink() or weights_place(source) != source:
        raise OptionError(
            f"{source} is not the directory of the weights itself, and --consume deletes nothing elsewhere.",
            f"Give {os.path.realpath(weights_place(source))}, with --config if config.json is in another directory.",
        )


def check_not_made(output: Path) -> None:
    """Raise OutputError if ``output`` is there: it may have the only copy of what was deleted for it."""
    try:
        check_free(output)
    except OutputError as error:
        raise OutputError(
            f"{error.reason} If an earlier run with --consume has made it, it is complete, and what it has is nowhere "
            f"else.",
            f"Look at it: internvl-bridge verify --checksums {shlex.quote(str(output))}",
        ) from error


def check_consumable(model: Model, planned: ModelPlan) -> None:
    """Raise CheckpointError if deleting files of ``model`` would lose what no output has, or free nothing."""
    directory = model.source.weights
    if model.weights.container != SAFETENSORS:
        raise CheckpointError(f"The weights in {directory} are not in safetensors files.", _WITHOUT)
    if not os.access(directory, os.W_OK):
        raise CheckpointError(f"Nothing can be deleted in {directory}: it cannot be written to.", _WITHOUT)
    own = _own(model)
    for shard in own:
        if not shard.is_absent:
            _check_file(shard)
    lost = _lost(model, planned)
    if lost:
        raise CheckpointError(
            f"{directory} holds tensors that the output does not have, and --consume would delete them: "
            f"{first_few(lost)}.",
            _WITHOUT,
        )
    stored = Counter[Path]()
    for tensor in model.checkpoint.tensors.values():
        stored[tensor.data.path] += tensor.data.length
    for shard in own:
        if not shard.is_absent and stored[shard.path] != shard.stamp.size - len(read_start(shard.path)[0]):
            raise CheckpointError(f"{shard.path} holds tensors that another file has, too.", _WITHOUT)


def consumable(model: Model, shards: Iterable[OutputShard]) -> list[Shard]:
    """The files that may be deleted: those of the source that ``shards`` need, and not those of --fill-from's base."""
    needed = {part.path for shard in shards for part in shard.ranges}
    return [shard for shard in _own(model) if shard.path in needed]


def _own(model: Model) -> list[Shard]:
    return [shard for shard in model.checkpoint.shards if shard.path.parent == model.source.weights]


def remembered_remarks(
    begun: Consumption, warnings: tuple[str, ...], notes: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The warnings and notes of the run that began to delete: what is not there any more cannot give any."""
    told = begun.remembered
    return tuple(map(str, told.get("warnings", warnings))), tuple(map(str, told.get("notes", notes)))


def _check_file(shard: Shard) -> None:
    status = shard.path.lstat()
    if shard.path.is_symlink():
        raise CheckpointError(f"{shard.path} is a link, and --consume deletes files only.", _WITHOUT)
    if status.st_nlink > 1:
        raise CheckpointError(
            f"{shard.path} has {status.st_nlink} names (hard links), so that deleting one frees nothing.",
            _WITHOUT,
        )


def _lost(model: Model, planned: ModelPlan) -> list[str]:
    """The stored tensors that no target needs, but for an output head that is a copy of the embeddings."""
    needed = {run.key for recipe in stored_plan(planned.plan, model.weights).recipes.values() for run in recipe.runs}
    unplanned = whole_specs(model.weights).keys() - planned.plan.sources.keys()
    assembly = model.weights.assembly
    for key in unplanned:
        needed |= {key} if assembly is None else {run.key for run in assembly.recipes[key].runs}
    return sorted(model.checkpoint.tensors.keys() - needed)
