"""Decide about an output in the format of its source: all but what becomes of the tensors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.checkpoint.model import Model, Source, read_model
from internvl_bridge.checkpoint.model_plan import plan_model
from internvl_bridge.convert.companions.same_format import same_files
from internvl_bridge.convert.computation import Computation
from internvl_bridge.convert.integrity import changed_small_files, manifest_of, recorded
from internvl_bridge.convert.links import check_links, files_that_are_told
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.prepare import (
    Conversion,
    Inputs,
    arranged,
    check_adapter,
    check_code,
    check_places,
    inputs_of,
)
from internvl_bridge.convert.serving import served_as
from internvl_bridge.convert.source_notes import notes_on_source
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.notes import warnings_of, without_warnings
from internvl_bridge.planning.tensor_plan import ModelPlan
from internvl_bridge.storage.output_shards import ShardContents, TargetTensor, index_of, needs_index


@dataclass(frozen=True, slots=True)
class Opened:
    """A source that was read: its model (of a wrapped one, the base model), and the plan that moves every tensor.

    ``inputs`` are the directories that are read. ``options`` and ``execution`` are what the caller wants.
    """

    inputs: Inputs
    model: Model
    planned: ModelPlan
    options: Options
    execution: Execution


def open_source(source: Path, outputs: Iterable[Path], options: Options, execution: Execution) -> Opened:
    """Read ``source`` for ``outputs``. Raises a BridgeError for what is not accepted of any of them.

    Proves that the tensors are those that config.json describes.
    """
    inputs = inputs_of(source, options, execution)
    config = None if options.config is None else Path(options.config)
    model = read_model(Source(source, config, options.state_dict), unwrap=True)
    check_code(model, execution)
    if not model.is_unwrapped:
        check_adapter(source, execution)
    for output in outputs:
        check_places(output, inputs, execution)
    tie = tied_head(model.description.family, model.description.dims.text, model.keys)
    planned = plan_model(model, model.keys, stores_copy=tie.head in model.specs)
    return Opened(inputs, model, planned, options, execution)


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of an output: how they are planned, in which shards, and what is computed of them.

    ``placed`` is where the bytes of every tensor are, None if they are where the plan says.
    """

    planned: ModelPlan
    shards: Sequence[ShardContents]
    computation: Computation | None = None
    placed: Mapping[str, TargetTensor] | None = None


def conversion_of(
    command: str, opened: Opened, output: Path, weights: Weights, config: str, told: Iterable[str] = ()
) -> Conversion:
    """What ``command`` makes at ``output``: ``weights``, the text of config.json, and the source's small files.

    ``told`` are notes about the weights.
    """
    model, inputs, options = opened.model, opened.inputs, opened.options
    same = same_files(model, config)
    if "links" not in opened.execution.accept:
        files = {*inputs.contents, *same.companions.copies}
        check_links(inputs.directories, files_that_are_told(files, model.directory))
    manifest, manifest_notes = manifest_of(model.directory)
    notes = (
        *notes_on_source(model, {}, keeps_dtypes=options.dtype is None),
        *told,
        *manifest_notes,
        *changed_small_files(manifest, model.directory, inputs.contents),
    )
    shards = arranged(weights.shards, model, options)
    return Conversion(
        model=model,
        inputs=inputs.directories,
        contents=inputs.contents,
        recorded=recorded(model, manifest),
        output=output,
        wanted=model.format,
        plan=weights.planned.plan,
        shards=shards,
        index=index_of(shards, model.checkpoint.index_metadata) if needs_index(shards) else None,
        texts=same.companions.texts,
        copies=same.companions.copies,
        sidecar=same.sidecar,
        left_behind=same.left_behind,
        fields={},
        warnings=warnings_of(notes),
        notes=without_warnings(notes),
        engines=served_as(model, weights.planned, model.keys, same.companions, output).engines,
        reference=None,
        options=options,
        execution=opened.execution,
        command=command,
        head=weights.planned.head,
        computation=weights.computation,
        placed=weights.placed,
    )
