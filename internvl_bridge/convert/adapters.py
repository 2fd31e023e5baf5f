"""Decide everything about the conversion of an adapter, before anything is written."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.adapter_directory import ADAPTER_FILE
from internvl_bridge.checkpoint.adapter_inspection import AdapterInspection, inspection_of_adapter
from internvl_bridge.checkpoint.adapters import AdapterOnDisk, base_of, described_base, read_adapter
from internvl_bridge.convert.links import check_links, files_that_are_told
from internvl_bridge.convert.moves import AdapterMoves
from internvl_bridge.convert.options import (
    Execution,
    Options,
    check_accepted,
    check_kind,
    check_options,
    check_several_processes,
)
from internvl_bridge.convert.overwrite_check import check_replaceable
from internvl_bridge.convert.prepare import command_for
from internvl_bridge.convert.source_watch import Contents, contents_of
from internvl_bridge.errors import BridgeError, OptionError, first_few, shown
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.lora.stored import Matrix
from internvl_bridge.metadata.adapter_config import checked_config, selects
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.files import LEGAL_FILES, TOKENIZER_FILES, present, text_digest
from internvl_bridge.metadata.json_files import JsonFile, as_text, parse_shallow_object, read_json_file
from internvl_bridge.metadata.kernel_files import check_no_kernel_files
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, is_as_written
from internvl_bridge.notes import warnings_of, without_warnings
from internvl_bridge.planning.adapter_plan import AdapterPlan, AdapterTarget, plan_adapter
from internvl_bridge.storage.checksums import text_checksum
from internvl_bridge.storage.header import Entry, byte_length, canonical_order, encode_header
from internvl_bridge.storage.output_place import check_apart, check_output

_CARRIED = (*TOKENIZER_FILES, *HF_PROCESSOR_FILES, *LEGAL_FILES)


@dataclass(frozen=True, slots=True)
class AdapterConversion:
    """The conversion of an adapter, decided and proved; nothing has been written.

    ``inputs`` are the directories that it reads, and ``contents`` is what their small files were before. ``header`` is
    that of the output's one file of factors, whose tensors are in the order of ``entries``. The other fields are as in
    :class:`internvl_bridge.convert.prepare.Conversion`.
    """

    adapter: AdapterOnDisk
    found: AdapterInspection
    inputs: tuple[Path, ...]
    contents: Contents
    output: Path
    wanted: Format
    plan: AdapterPlan
    family: str
    header: bytes
    entries: Mapping[str, Entry]
    texts: Mapping[str, str]
    copies: tuple[Path, ...]
    sidecar: Mapping[str, Any]
    left_behind: tuple[str, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    options: Options
    execution: Execution
    command: str

    @property
    def moves(self) -> AdapterMoves:
        """What it does with every tensor."""
        return AdapterMoves(self.entries, self.plan.sources)

    @property
    def data_bytes(self) -> int:
        return sum(entry.stop - entry.start for entry in self.entries.values())

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(sorted({ADAPTER_FILE, SIDECAR_FILE, *self.texts, *(path.name for path in self.copies)}))


def prepare_adapter(
    source: Path, output: Path, formats: tuple[Format, Format], options: Options, execution: Execution
) -> AdapterConversion:
    """Decide everything about a conversion of an adapter from the first of ``formats`` to the second; write nothing."""
    accepted, wanted = formats
    check_kind(options, is_adapter=True)
    check_options(options)
    check_accepted(execution.accept)
    check_several_processes(execution, output, is_adapter=True)
    if execution.stream:
        raise OptionError("--stream is for whole checkpoints, and this is an adapter.", "Leave it out.")
    if execution.consume or execution.read_links:
        raise OptionError(
            "--consume and --read-links are for whole checkpoints, and this is an adapter.", "Leave them out."
        )
    check_no_kernel_files(source)
    before = contents_of([source])  # before it is read: a change in between is noticed later
    adapter = read_adapter(source)
    base = base_of(adapter, None if options.base is None else Path(options.base))
    inputs = (source, base)
    contents = {**before, **contents_of([base])}
    description = described_base(base, adapter)
    for what, read in (("source", source), ("base", base)):
        check_apart(output, read, what)
    check_output(source, output, overwrite=execution.overwrite)
    if execution.overwrite:
        check_replaceable(output, inputs)
    copies = tuple(present(source, _CARRIED))
    if "links" not in execution.accept:
        check_links(inputs[:1], files_that_are_told(copies, source))
    record = _record(source, wanted)
    target = AdapterTarget(accepted, wanted, options.transformers, options.target_base)
    plan = plan_adapter(adapter.specs, adapter.config, description, target, _look(adapter, record))
    entries = _entries(plan, adapter)
    config = as_text(plan.config) if options.target_base else _config_text(plan, record, source)
    sidecar = {
        "source_format": accepted.value,
        "family": description.family.name,
        "adapter": {
            "config": adapter.config.file.text,
            "written": text_digest(config),
            "tensors": sorted(adapter.specs),
            "ranks": {_name(matrix): list(ranks) for matrix, ranks in plan.ranks.items()},
        },
    }
    told = [*plan.notes, *_others(source)]
    if accepted is not wanted:
        told += _notes_on_base(adapter.config.values, config)
    used = {ADAPTER_CONFIG, SIDECAR_FILE, adapter.checkpoint.shards[0].path.name, *(path.name for path in copies)}
    there = {path.name for path in source.iterdir() if not path.name.startswith(".")}
    return AdapterConversion(
        adapter=adapter,
        found=inspection_of_adapter(adapter),
        inputs=inputs,
        contents=contents,
        output=output,
        wanted=wanted,
        plan=plan,
        family=description.family.name,
        header=encode_header(entries, {"format": "pt"}),
        entries=entries,
        texts={ADAPTER_CONFIG: config},
        copies=copies,
        sidecar=sidecar,
        left_behind=tuple(sorted(there - used)),
        warnings=warnings_of(told),
        notes=without_warnings(told),
        options=options,
        execution=execution,
        command=command_for(accepted, wanted),
    )


def _look(adapter: AdapterOnDisk, record: Mapping[str, Any]) -> Any:
    from internvl_bridge.checkpoint.lora_tensors import look_at_values, stored_tensors  # imports torch  # noqa: PLC0415

    ranks = {_matrix(name): tuple(stated) for name, stated in record.get("ranks", {}).items()}
    return partial(look_at_values, tensor_of=stored_tensors(adapter.checkpoint), ranks=ranks)


def _entries(plan: AdapterPlan, adapter: AdapterOnDisk) -> dict[str, Entry]:
    """Where each tensor of the output lies in its file, in the order of ``safetensors.torch.save``."""
    packed, specs = plan.packed, adapter.specs
    kinds = {key: (recipe.dtype, recipe.shape) for key, recipe in packed.factors.items()}
    kinds |= {key: (specs[source].dtype, specs[source].shape) for key, source in packed.renamed.items()}
    for key, recipe in packed.whole.items():
        source = plan.adapter.whole[recipe.runs[0].key][0]
        kinds[key] = specs[source].dtype, recipe.spec.shape
    entries: dict[str, Entry] = {}
    position = 0
    for key in canonical_order((key, dtype) for key, (dtype, _) in kinds.items()):
        dtype, shape = kinds[key]
        stop = position + (byte_length(dtype, prod(shape)) or 0)
        entries[key] = Entry(dtype, shape, position, stop)
        position = stop
    return entries


def _record(source: Path, wanted: Format) -> Mapping[str, Any]:
    """What the sidecar of an adapter remembers of the one that it was made from; nothing if that is of no use here."""
    try:
        values = read_json_file(source / SIDECAR_FILE).values
    except BridgeError:  # nothing that a conversion needs
        return {}
    match values:
        case {
            "source_format": str(format_),
            "adapter": {"config": str(config), "written": str(written), "tensors": list(tensors), "ranks": dict(ranks)},
        } if format_ == wanted.value and all(_is_list_of_ranks(stated) for stated in ranks.values()):
            return {"config": config, "written": written, "tensors": tensors, "ranks": ranks}
        case _:
            return {}


def _is_list_of_ranks(value: object) -> bool:
    return isinstance(value, list) and all(type(rank) is int and 0 <= rank < 1 << 20 for rank in value)


def _config_text(plan: AdapterPlan, record: Mapping[str, Any], source: Path) -> str:
    """adapter_config.json of the output: as it was, if it still says of all tensors what is so."""
    path = source / ADAPTER_CONFIG
    is_same = bool(record) and record["written"] == text_digest(read_json_file(path).text)
    is_same = is_same and is_as_written(source, text_checksum)
    if not is_same or record["tensors"] != sorted(plan.packed.keys):
        return as_text(plan.config)
    text = str(record["config"])
    try:
        values = parse_shallow_object(text.encode(errors="replace"), ValueError)
        before = checked_config(JsonFile(path, text, values))
        scalings = {**plan.packed.modules, **plan.packed.parameters}.items()
        is_true = all(before.scaling_of(name, scaling.rank) == scaling for name, scaling in scalings)
        is_true = is_true and _selects_the_same(values, plan)
    except (BridgeError, ValueError):
        is_true = False
    return text if is_true else as_text(plan.config)


def _selects_the_same(values: Mapping[str, Any], plan: AdapterPlan) -> bool:
    """Whether the config ``values`` changes the modules that ``plan`` does, and replaces something if that does."""
    chosen = selects(values, plan.modules)
    fields = ("modules_to_save", "trainable_token_indices", "target_parameters")
    alike = all(bool(values.get(name)) == bool(plan.config.get(name)) for name in fields)
    return chosen == {*plan.packed.modules} and alike and values.get("bias") == plan.config.get("bias")


def _notes_on_base(before: Mapping[str, Any], config: str) -> Iterator[str]:
    """That the output names the same base model as the source, which is of the other format."""
    named = before.get("base_model_name_or_path")
    if named == json.loads(config).get("base_model_name_or_path"):
        yield (
            f"adapter_config.json still names {shown(named)} as base model. Give --target-base to name the one in the "
            f"other format."
        )


def _others(source: Path) -> Iterator[str]:
    """The adapters that PEFT keeps in directories below this one."""
    inner = sorted(path.name for path in source.iterdir() if (path / ADAPTER_CONFIG).is_file())
    if inner:
        yield (
            f"The directory holds other adapters, too: {first_few(inner)}. Convert each of them by giving its "
            f"directory: {source / inner[0]}"
        )


def _name(matrix: Matrix) -> str:
    return matrix.key if matrix.expert is None else f"{matrix.key}#{matrix.expert}"


def _matrix(name: str) -> Matrix:
    key, _, expert = name.partition("#")
    return Matrix(key, int(expert) if expert.isdecimal() else None)
