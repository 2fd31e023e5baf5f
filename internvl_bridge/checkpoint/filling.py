"""Add to a model the tensors that it lacks, from a checkpoint of either format that has them."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.model_plan import plan_model
from internvl_bridge.checkpoint.opened_weights import OpenedWeights
from internvl_bridge.checkpoint.weights import stored_plan, whole_specs
from internvl_bridge.errors import ContradictionError, OptionError, UnsupportedModelError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.packing import MXFP4, packing_in
from internvl_bridge.mapping.plan import Plan, Recipe, Run, identity
from internvl_bridge.mapping.schema_check import counted_parts
from internvl_bridge.metadata.config.agreement import differing_fields, other_heads
from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.notes import Warn, called
from internvl_bridge.storage.source_shards import Checkpoint

_LANGUAGE = ("language_model.", "model.language_model.")


def filled(model: Model, base: Model) -> Model:
    """``model`` with those tensors of ``base`` that it does not have, under the names that it would have for them.

    ``base`` may be of the other format, and is planned as for a conversion: what is taken is what that would write.
    Raises ContradictionError for a base of other sizes, and OptionError if nothing is missing.
    """
    _check_alike(model, base)
    planned = plan_model(base, model.keys, stores_copy=False)
    missing = [key for key in planned.plan.recipes if key not in model.specs]
    tie, told = planned.tie, [*_notes_on_fields(model, base)]
    if model.description.may_be_tied and tie.head in missing and tie.embeddings not in missing:
        missing.remove(tie.head)  # the embeddings of the model serve
        told.append(
            Warn(
                f"{called(base.directory)} has an output head of its own. It is not taken: config.json calls "
                f"the model tied, so that its own embeddings serve."
            )
        )
    if not missing:
        raise OptionError(
            f"{model.source.weights} lacks no tensor that {base.directory} has.", "Leave out --fill-from."
        )
    taken = Plan(planned.plan.sources, {key: planned.plan.recipes[key] for key in missing})
    weights = _joined(model.weights, base.weights, stored_plan(taken, base.weights), called(base.directory))
    specs = whole_specs(weights)
    family = None if model.format is Format.CUSTOM else model.description.family
    remark = (
        f"{model.source.weights.name or model.source.weights} lacks {counted_parts(missing, planned.plan.recipes)}. "
        f"They are those of {called(base.directory)} (--fill-from)."
    )
    return replace(
        model,
        description=describe(model.description.file, specs, family),
        weights=weights,
        specs=specs,
        remarks=(*model.remarks, remark, *told),
        filled=tuple(missing),
        parts=(model, base),
    )


def _notes_on_fields(model: Model, base: Model) -> Iterator[str]:
    if fields := differing_fields(model.description, base.description):
        values = ", ".join(f"{name} ({both})" for name, both in fields.items())
        yield Warn(
            f"config.json and that of {called(base.directory)} disagree about what the model computes: {values}."
        )


def _check_alike(model: Model, base: Model) -> None:
    ours, theirs = model.description, base.description
    packed = [packing_in(part.specs) not in {None, MXFP4} for part in (model, base)]
    if packed[0] != packed[1] and any(key.startswith(_LANGUAGE) for key in model.specs):
        which = base if packed[1] else model
        raise UnsupportedModelError(
            f"{which.source.weights} is quantised, and the other one of the two is not.",
            "Give --fill-from the checkpoint that the training started from.",
        )
    if problem := _difference(ours, theirs):
        raise ContradictionError(
            f"{ours.file.path} and {theirs.file.path} describe two different models: {problem}.",
            "Give --fill-from the checkpoint that the training started from.",
        )


def _difference(ours: ModelDescription, theirs: ModelDescription) -> str | None:
    """What shows that the two are not of one base model; a vocabulary may be resized."""
    if ours.family.hf_model_type != theirs.family.hf_model_type:
        return "their language models are of two families"
    if heads := other_heads(ours, theirs):
        return heads
    if ours.dims.vision != theirs.dims.vision:
        return "their vision towers have other sizes"
    return None if replace(ours.dims.text, vocab=0) == replace(theirs.dims.text, vocab=0) else "their sizes differ"


def _joined(ours: OpenedWeights, base: OpenedWeights, plan: Plan, name: str) -> OpenedWeights:
    """``ours`` with the targets of ``plan``, which starts from what is stored of ``base``.

    The keys of what is stored there get the ``name`` of that checkpoint in front, so that they are told apart.
    """
    mark = f"{name}: "
    while any(key.startswith(mark) for key in ours.checkpoint.tensors):
        mark += " "
    stored = {run.key for recipe in plan.recipes.values() for run in recipe.runs}
    assembly = ours.assembly or identity(whole_specs(ours))
    sources = {**assembly.sources, **{mark + key: plan.sources[key] for key in sorted(stored)}}
    recipes = {**assembly.recipes, **{key: _moved(recipe, mark) for key, recipe in plan.recipes.items()}}
    return replace(
        ours,
        checkpoint=_together(ours.checkpoint, base.checkpoint, stored, mark),
        assembly=Plan(sources, recipes),
        crcs={**ours.crcs, **base.crcs},
    )


def _moved(recipe: Recipe, mark: str) -> Recipe:
    return Recipe(recipe.spec, tuple(Run(mark + run.key, run.start, run.stop) for run in recipe.runs))


def _together(ours: Checkpoint, base: Checkpoint, stored: Collection[str], mark: str) -> Checkpoint:
    """The shards and tensors of ``ours``, and those of ``base`` that are ``stored`` there and used."""
    used = {key: tensor for key, tensor in base.tensors.items() if key in stored}
    numbers = {old: len(ours.shards) + new for new, old in enumerate(sorted({t.shard for t in used.values()}))}
    moved = {mark + key: tensor._replace(shard=numbers[tensor.shard]) for key, tensor in used.items()}
    shards = (*ours.shards, *(base.shards[old] for old in numbers))
    return replace(ours, shards=shards, tensors={**ours.tensors, **moved})
