"""Decide everything about a conversion and prove it, before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from internvl_bridge.checkpoint.byte_ranges import in_source_shards, target_tensors
from internvl_bridge.checkpoint.filling import filled
from internvl_bridge.checkpoint.model import Model, Source, read_model, read_other
from internvl_bridge.checkpoint.model_plan import HEAD_IS_COPY, plan_model
from internvl_bridge.checkpoint.weights import holds_weights, stored_plan, weights_place
from internvl_bridge.convert.companions.repair import repaired_files
from internvl_bridge.convert.companions.shared import CompanionFiles, tokenizer_home, without_byte_order_marks
from internvl_bridge.convert.companions.to_custom import custom_files
from internvl_bridge.convert.companions.to_hf import hf_files
from internvl_bridge.convert.companions.unconverted import unconverted_files
from internvl_bridge.convert.consumable import check_consumable, check_consuming, check_not_made, remembered_remarks
from internvl_bridge.convert.integrity import Recorded, changed_small_files, manifest_of, recorded
from internvl_bridge.convert.link_notes import notes_on_links
from internvl_bridge.convert.links import check_links, files_that_are_told
from internvl_bridge.convert.moves import Moves
from internvl_bridge.convert.options import (
    PATHS,
    Execution,
    Options,
    check_accepted,
    check_applies,
    check_kind,
    check_links_to_read,
    check_options,
    check_several_processes,
    check_streaming,
)
from internvl_bridge.convert.overwrite_check import check_replaceable
from internvl_bridge.convert.serving import notes_on_serving, served_as
from internvl_bridge.convert.source_notes import fields_that_differ, notes_on_source
from internvl_bridge.convert.source_watch import Contents, contents_of
from internvl_bridge.errors import OptionError, UnsupportedModelError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.mapping.spellings import chosen_spelling
from internvl_bridge.metadata.adapters import check_no_adapter
from internvl_bridge.metadata.config.forks import check_no_fork
from internvl_bridge.metadata.kernel_files import check_no_kernel_files
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.notes import warnings_of, without_warnings
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.planning.tensor_plan import ModelPlan
from internvl_bridge.reporting.sizes import parse_size
from internvl_bridge.storage.consumed import begun_consumption
from internvl_bridge.storage.equal_files import with_equal_files
from internvl_bridge.storage.linking import check_device
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.storage.output_place import check_apart, check_output
from internvl_bridge.storage.output_shards import (
    OutputShard,
    ShardContents,
    TargetTensor,
    aligned,
    by_name,
    cut_where_sources_end,
    index_of,
    needs_index,
    output_shards,
    reshard,
)
from internvl_bridge.storage.source_shards import INDEX_FILE, Shard
from internvl_bridge.work.workers import check_workers

if TYPE_CHECKING:
    from internvl_bridge.checkpoint.inspection import Inspection
    from internvl_bridge.convert.computation import Computation

FORMATS = {
    "to-hf": (Format.CUSTOM, Format.HF),
    "to-custom": (Format.HF, Format.CUSTOM),
    "repair": (Format.HF, Format.HF),
}
"""The formats that a command converts from and into."""
_AS_USUAL = Execution()
_CALLED = {"config": "config", "fill_from": "base", "reference": "reference", "tokenizer": "tokenizer", "base": "base"}
"""What the directories that options name are to the conversion."""
_DUMP_SHARD = "5GB"
"""The shards of an output whose source has none that could be kept."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion, decided and proved; nothing has been written.

    ``inputs`` are the directories that it reads. ``contents`` is what their small files were before. ``recorded`` are
    the checksums that the source carries. ``shards`` are the safetensors files, and ``index`` is the contents of their
    index. ``texts`` are the contents of other files, by name. ``copies`` are files to copy as they are. ``sidecar`` is
    the contents of the sidecar. It also gets the checksums of all files, and a record of the conversion.
    ``left_behind`` are files of the source that the output has neither as they are, nor converted, nor in its sidecar.
    ``fields`` are those that change what a model computes and differ from the reference's, with both values.
    ``warnings`` should stop somebody before the work. ``notes`` can be read after it. ``engines`` serve the output.
    ``command`` is the one that does this. ``head`` is the source's output head. ``computation`` is what it computes,
    None if it only moves bytes. ``placed`` is where the bytes of every tensor are, None if they are where
    ``plan`` says.
    """

    model: Model
    inputs: tuple[Path, ...]
    contents: Contents
    recorded: Recorded
    output: Path
    wanted: Format
    plan: Plan
    shards: tuple[OutputShard, ...]
    index: Mapping[str, object] | None
    texts: Mapping[str, str]
    copies: tuple[Path, ...]
    sidecar: Mapping[str, Any]
    left_behind: tuple[str, ...]
    fields: Mapping[str, str]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    engines: tuple[str, ...]
    reference: Path | None
    options: Options
    execution: Execution
    command: str
    head: OutputHead = OutputHead.OWN
    computation: "Computation | None" = None
    placed: Mapping[str, TargetTensor] | None = None

    @property
    def found(self) -> "Inspection":
        """What the source is, for reports: no byte should wait for it."""
        from internvl_bridge.checkpoint.inspection import inspection_of  # noqa: PLC0415 (after the work)

        return inspection_of(self.model, self.head)

    @property
    def targets(self) -> Mapping[str, TargetTensor]:
        """Where the bytes of every tensor are."""
        if self.placed is not None:
            return self.placed
        return dict(target_tensors(stored_plan(self.plan, self.model.weights), self.model.checkpoint))

    @property
    def moves(self) -> Moves:
        """What it does with every tensor."""
        computed, adapters = (self.computation.tensors, self.computation.shards) if self.computation else ({}, ())
        return Moves(self.plan, self.model.weights, self.shards, computed, adapters)

    @property
    def read_from(self) -> tuple[Shard, ...]:
        """The files of weights that it reads."""
        return (*self.model.checkpoint.shards, *(self.computation.shards if self.computation else ()))

    @property
    def there(self) -> tuple[Shard, ...]:
        """Those of them that no earlier run has deleted."""
        return tuple(shard for shard in self.read_from if not shard.is_absent)

    @property
    def data_bytes(self) -> int:
        return sum(shard.data_size for shard in self.shards)

    @property
    def files(self) -> tuple[str, ...]:
        weights = [shard.name for shard in self.shards] + ([INDEX_FILE] if self.index else [])
        return tuple(sorted({*weights, SIDECAR_FILE, *self.texts, *(path.name for path in self.copies)}))


def command_for(accepted: Format, wanted: Format) -> str:
    """The command that makes an output in the format ``wanted`` of a source in the format ``accepted``."""
    if accepted is wanted:
        return "repair"
    return "to-hf" if wanted is Format.HF else "to-custom"


def prepare(
    source: str | Path,
    output: str | Path,
    formats: tuple[Format, Format],
    options: Options,
    execution: Execution = _AS_USUAL,
) -> Conversion:
    """Decide everything about a conversion from the first of ``formats`` to the second and prove it; write nothing."""
    accepted, wanted = formats
    source, output = Path(source), Path(output)
    if not source.is_dir():
        raise not_a_directory(source)  # whatever else was chosen for it
    check_kind(options, is_adapter=False)
    check_links_to_read(options, execution)
    check_streaming(options, execution)
    check_several_processes(execution, output)
    inputs = inputs_of(source, options, execution)
    given, reference = inputs.given, inputs.given.get("reference")
    if execution.consume:
        check_consuming(source, inputs.given, options, execution)
        check_apart(output, source, "source")
        check_not_made(output)
    begun = begun_consumption(source, output)
    head_is_copy = None if begun is None else bool(begun.remembered.get(HEAD_IS_COPY))
    place = Source(source, given.get("config"), options.state_dict, begun, head_is_copy)
    model = _read(place, given, accepted, wanted, execution)
    check_applies(options, wanted)
    check_places(output, inputs, execution)
    if reference is not None and holds_weights(reference):
        read_other(reference, "--reference")  # a reference that cannot be compared with must not surprise at the end
    spelling = chosen_spelling(wanted, options.layout, options.experts)
    planned = plan_model(model, spelling, stores_copy=_stores_copy(model, options, wanted), files=execution.reads)
    shards = _output_shards(model, planned, options)
    if options.link is not None:
        shards = with_equal_files(shards, model.checkpoint.shards)
    if options.link == "hard":
        check_device((shard.equals for shard in shards if shard.equals is not None), output)
    home = tokenizer_home(model.directory, reference, options.tokenizer)
    companions = _companion_files(model, planned, options, wanted, home)
    if "links" not in execution.accept:
        check_links(inputs.directories, files_that_are_told({*inputs.contents, *companions.copies}, model.directory))
    unconverted = unconverted_files(model, planned, companions, home, wanted)
    fields = fields_that_differ(model)
    manifest, manifest_notes = manifest_of(model.directory)
    served = served_as(model, planned, spelling, companions, output)
    told = (
        *notes_on_source(model, fields),
        *notes_on_serving(served),
        *notes_on_links(shards, options.link),
        *manifest_notes,
        *companions.notes,
        *changed_small_files(manifest, model.directory, inputs.contents),
    )
    warnings, notes = warnings_of(told), without_warnings(told)
    if begun is not None:
        warnings, notes = remembered_remarks(begun, warnings, notes)
    if execution.consume:
        check_consumable(model, planned)
    return Conversion(
        model=model,
        inputs=inputs.directories,
        contents=inputs.contents,
        recorded=recorded(model, manifest, is_streamed=execution.reads is not LOCAL),
        output=output,
        wanted=wanted,
        plan=planned.plan,
        shards=shards,
        index=index_of(shards, model.checkpoint.index_metadata) if needs_index(shards) else None,
        texts=companions.texts,
        copies=tuple(path for path in companions.copies if path.name != SIDECAR_FILE),
        sidecar=unconverted.sidecar,
        left_behind=unconverted.left_behind,
        fields={} if reference is None else fields,
        warnings=warnings,
        notes=notes,
        engines=served.engines,
        reference=reference,
        options=options,
        execution=execution,
        command=command_for(accepted, wanted),
        head=planned.head,
    )


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run reads: ``source``, and directories that options name, ``given`` by the name of the option.

    ``weights`` are the directories whose weights are read, ``directories`` all. ``contents`` is what their small files
    are before they are read: a change in between is noticed later.
    """

    source: Path
    given: Mapping[str, Path]
    weights: tuple[Path, ...]
    directories: tuple[Path, ...]
    contents: Contents


def inputs_of(source: Path, options: Options, execution: Execution) -> Inputs:
    """What a run reads. Raises OptionError for what cannot be chosen, and UnsupportedModelError for code in kernels."""
    given = {name: Path(place) for name in PATHS if (place := getattr(options, name)) is not None}
    weights = (source, given["fill_from"]) if "fill_from" in given else (source,)
    adapters = map(Path, options.adapters)
    places = tuple(dict.fromkeys((*weights, *given.values(), *map(weights_place, weights), *adapters)))
    check_options(options)
    check_accepted(execution.accept)
    check_workers(execution.workers)
    for place in places:
        if place.is_dir():
            check_no_kernel_files(place)
    return Inputs(source, given, weights, places, contents_of(places))


def check_places(output: Path, inputs: Inputs, execution: Execution) -> None:
    """Raise OutputError for an ``output`` that is not apart from what is read, or would replace what is lost then."""
    if str(output).startswith("hf:"):
        raise OptionError(f"{output} is not a directory of this machine.", "Use --push-to-hub, or the command push.")
    for what, read in inputs.given.items():
        check_apart(output, read, _CALLED[what])
    for place in map(weights_place, inputs.weights):
        check_apart(output, place, "source")
    check_output(inputs.source, output, overwrite=execution.overwrite)
    if execution.overwrite:
        check_replaceable(output, inputs.directories)


def _read(source: Source, given: Mapping[str, Path], accepted: Format, wanted: Format, execution: Execution) -> Model:
    """The source, with what it lacks from its base. Raises a BridgeError for what is not accepted of either."""
    model = read_model(source, given.get("reference"), alone=accepted is wanted)
    if model.format is not accepted:
        raise _wrong_format(model)
    check_code(model, execution)
    check_adapter(source.weights, execution)
    base = given.get("fill_from")
    if base is None:
        return model
    other = read_other(base, "--fill-from")
    check_code(other, execution)
    check_adapter(base, execution)
    return filled(model, other)


def check_adapter(directory: Path, execution: Execution) -> None:
    """Refuse an adapter beside weights, unless it is accepted."""
    if "adapter" not in execution.accept:
        for place in dict.fromkeys((directory, weights_place(directory))):
            check_no_adapter(place)


def check_code(model: Model, execution: Execution) -> None:
    """Refuse forks as source and as reference, unless they are accepted."""
    if "fork" in execution.accept:
        return
    check_no_fork(model.description.file)
    if model.other_format is not None and model.other_format.is_reference:
        check_no_fork(model.other_format.description.file)


def _wrong_format(model: Model) -> UnsupportedModelError:
    """The refusal of a source that another command is for."""
    if model.format is Format.CUSTOM:
        return UnsupportedModelError(
            f"{model.source.weights} is in the custom format.",
            "Use 'internvl-bridge to-hf' to convert it into the HF format.",
        )
    return UnsupportedModelError(
        f"{model.source.weights} is already in the HF format.",
        "Use 'internvl-bridge to-custom' to convert it into the custom one, or 'internvl-bridge repair' if "
        "transformers does not load it.",
    )


def _output_shards(model: Model, planned: ModelPlan, options: Options) -> tuple[OutputShard, ...]:
    """The safetensors files to write: the shards of the source and their order, unless the options say otherwise."""
    return arranged(in_source_shards(stored_plan(planned.plan, model.weights), model.checkpoint), model, options)


def arranged(shards: Sequence[ShardContents], model: Model, options: Options) -> tuple[OutputShard, ...]:
    """The files that hold ``shards`` of a checkpoint made of ``model``, in the sizes and the order of ``options``."""
    usual = None if model.weights.has_shards else _DUMP_SHARD
    limit = usual if options.max_shard_size is None else options.max_shard_size
    if limit is not None:
        cut = reshard if options.link is None else cut_where_sources_end
        shards = cut(shards, parse_size(limit))
    return tuple(output_shards([by_name(shard) if options.order == "name" else aligned(shard) for shard in shards]))


def _companion_files(model: Model, planned: ModelPlan, options: Options, wanted: Format, home: Path) -> CompanionFiles:
    """Everything beside the weights and the sidecar; ``home`` is where the tokenizer is."""
    if wanted is Format.CUSTOM:
        files = custom_files(model, planned, home, options.reference)
    else:
        make = hf_files if model.format is Format.CUSTOM else repaired_files
        files = make(model, planned, home, options.system_message)
    return without_byte_order_marks(files)


def _stores_copy(model: Model, options: Options, wanted: Format) -> bool:
    """Whether the output of a tied model stores a copy of its embeddings as output head.

    If the source was made from a checkpoint of that format: as that one did.
    """
    remembered = model.other_format.head if model.other_format and wanted is not model.format else None
    if wanted is Format.HF:
        return remembered == OutputHead.COPY.value
    return remembered != OutputHead.SHARED.value if options.tied is None else options.tied == "copy"
