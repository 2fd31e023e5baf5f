"""Convert one directory into another: read, plan, prove, copy, verify, publish."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from internvl_bridge.byte_plan import in_source_shards, target_tensors
from internvl_bridge.errors import ConfigError, ContradictionError, DifferenceError, UnsupportedModelError
from internvl_bridge.mapping.families import INTERNLM2, LLAMA
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.metadata.config_file import CONFIG_FILE, Format
from internvl_bridge.metadata.files import carried_files, has_tokenizer, remote_code
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, kept_files, sidecar_text
from internvl_bridge.metadata.tokenizer import image_token_id
from internvl_bridge.metadata.translation import to_custom_config, to_hf_config
from internvl_bridge.model import Model, plan_conversion, read_model, tensor_facts
from internvl_bridge.progress import Progress, silent
from internvl_bridge.report import ConversionReport
from internvl_bridge.sizes import parse_size
from internvl_bridge.storage.checkpoint import INDEX_FILE, has_weights, open_checkpoint
from internvl_bridge.storage.copying import write_file
from internvl_bridge.storage.layout import (
    FileJob,
    TargetTensor,
    aligned,
    by_name,
    file_jobs,
    index_of,
    needs_index,
    reshard,
)
from internvl_bridge.storage.publishing import check_output, publishing, write_bytes
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.verification import Comparison, compare
from internvl_bridge.verify_directories import compare_models

Order = Literal["source", "name"]


@dataclass(frozen=True, slots=True)
class Options:
    """What :func:`to_hf` and :func:`to_custom` let their callers choose."""

    reference: str | Path | None = None
    tokenizer: str | Path | None = None
    max_shard_size: int | str | None = None
    order: Order = "source"
    verify: bool = True


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion, decided and proved; nothing has been written.

    ``jobs`` are the safetensors files, ``texts`` other files by name with their contents, ``copies``
    files to copy as they are.
    """

    model: Model
    output: Path
    plan: Plan
    targets: Mapping[str, TargetTensor]
    jobs: tuple[FileJob, ...]
    texts: Mapping[str, str]
    copies: tuple[Path, ...]
    notes: tuple[str, ...]
    reference: Path | None
    verify: bool

    @property
    def data_bytes(self) -> int:
        return sum(target.length for target in self.targets.values())

    @property
    def files(self) -> tuple[str, ...]:
        names = {job.name for job in self.jobs} | set(self.texts) | {path.name for path in self.copies}
        return tuple(sorted(names))

    @property
    def left_behind(self) -> tuple[str, ...]:
        """Files of the source that the output has neither as they are, nor converted, nor in its sidecar."""
        weights = {shard.path.name for shard in self.model.checkpoint.shards}
        used = {INDEX_FILE, SIDECAR_FILE, *weights, *kept_files(self.model.format), *self.files}
        return tuple(sorted({path.name for path in self.model.directory.iterdir()} - used))


def to_hf(
    source: str | Path,
    output: str | Path,
    *,
    reference: str | Path | None = None,
    tokenizer: str | Path | None = None,
    max_shard_size: int | str | None = None,
    order: Order = "source",
    verify: bool = True,
    progress: Progress = silent,
) -> ConversionReport:
    """Convert the custom checkpoint ``source`` into a directory that transformers loads.

    Copies byte ranges in bounded memory; imports neither torch nor transformers, except to measure
    distances to ``reference``, an HF checkpoint to compare with (and to take unstated config from).
    ``tokenizer`` is a directory to take tokenizer files from instead of ``source``. Shards and their
    physical order are those of ``source``, unless ``max_shard_size`` (bytes, or for instance "5GB")
    or ``order="name"`` (the order of ``safetensors.torch.save``) say otherwise.

    ``output`` appears complete and verified, or not at all. Raises a BridgeError that names file, key
    and remedy for anything that is not fully understood, and DifferenceError if what was written is
    not what was read.
    """
    options = Options(reference, tokenizer, max_shard_size, order, verify)
    return carry_out(prepare(source, output, Format.HF, options), progress)


def to_custom(
    source: str | Path,
    output: str | Path,
    *,
    reference: str | Path | None = None,
    tokenizer: str | Path | None = None,
    max_shard_size: int | str | None = None,
    order: Order = "source",
    verify: bool = True,
    progress: Progress = silent,
) -> ConversionReport:
    """Convert the HF checkpoint ``source`` into the custom format of InternVL's own training code.

    As :func:`to_hf`, the other way round. ``reference``, a custom checkpoint, also tells what HF's
    config cannot: the template, the tiling, whether a Llama was an InternLM2; without it a sidecar in
    ``source`` does, else the defaults that the report's notes name.
    """
    options = Options(reference, tokenizer, max_shard_size, order, verify)
    return carry_out(prepare(source, output, Format.CUSTOM, options), progress)


def prepare(source: str | Path, output: str | Path, wanted: Format, options: Options) -> Conversion:
    """Decide everything about a conversion and prove it; write nothing."""
    source, output = Path(source), Path(output)
    limit = None if options.max_shard_size is None else parse_size(options.max_shard_size)
    reference = None if options.reference is None else Path(options.reference)
    model = read_model(source, reference)
    check_output(source, output)
    if model.format is wanted:
        raise UnsupportedModelError(
            f"{source} is already in the {wanted.value} format.",
            f"Use 'internvl-bridge {model.direction.value}' to convert it into the other one.",
        )
    plan = plan_conversion(model)
    targets = target_tensors(plan, model.checkpoint)
    shards = in_source_shards(plan, model.checkpoint, targets)
    shards = shards if limit is None else reshard(shards, limit)
    jobs = file_jobs([by_name(shard) if options.order == "name" else aligned(shard) for shard in shards])

    tokenizer_home = _tokenizer_home(source, reference, options.tokenizer)
    config, notes = _config(model, plan, tokenizer_home)
    texts = {CONFIG_FILE: config, SIDECAR_FILE: sidecar_text(source, model.format, model.family.name)}
    if model.complement is not None:
        texts = {**model.complement.files, **texts}
    if needs_index(jobs):
        total = sum(target.length for target in targets.values())
        index = index_of(jobs, model.checkpoint.index_metadata, total)
        texts[INDEX_FILE] = json.dumps(index, indent=2, ensure_ascii=False) + "\n"
    code = remote_code(reference) if reference and wanted is Format.CUSTOM else []
    copies = [*carried_files(source, tokenizer_home), *code]
    if wanted is Format.CUSTOM and not code:
        notes.append(
            "The custom format's Python modules (*.py) are not part of the source; copy them from the "
            "original model, or give it as --reference, before loading with trust_remote_code."
        )
    return Conversion(
        model=model,
        output=output,
        plan=plan,
        targets=targets,
        jobs=tuple(jobs),
        texts=texts,
        copies=tuple(copies),
        notes=tuple(notes),
        reference=reference,
        verify=options.verify,
    )


def carry_out(conversion: Conversion, progress: Progress = silent) -> ConversionReport:
    """Write what was decided: complete, verified (unless told not to) and then published by a rename."""
    model, output = conversion.model, conversion.output
    verification = None
    with publishing(output) as partial:
        advance = progress("Converting", conversion.data_bytes)
        with FileReader() as readers:
            for job in conversion.jobs:
                write_file(partial, job, readers, advance)
        for path in conversion.copies:
            write_bytes(partial / path.name, path.read_bytes())
        for name, text in conversion.texts.items():
            write_bytes(partial / name, text.encode())
        if conversion.verify:
            verification = compare(
                conversion.targets, open_checkpoint(partial), progress("Verifying", conversion.data_bytes)
            )
            if not verification.identical:
                raise DifferenceError(_describe_failure(verification), _DAMAGED_OUTPUT)
    return ConversionReport(
        source=model.directory,
        output=output,
        format=model.format.other.value,
        family=model.family.name,
        tensors=len(conversion.targets),
        bytes=conversion.data_bytes,
        files=conversion.files,
        left_behind=conversion.left_behind,
        notes=conversion.notes,
        verification=verification,
        reference=_compare_with_reference(output, conversion.reference, progress),
    )


def _config(model: Model, plan: Plan, tokenizer_home: Path) -> tuple[str, list[str]]:
    """The text of the output's config.json, and notes about it."""
    tensors, old = tensor_facts(model, plan), model.complement
    notes: list[str] = []
    config: dict[str, Any]
    if model.format is Format.CUSTOM:
        token = image_token_id(tokenizer_home)
        if token >= model.dims.text.vocab:
            raise ContradictionError(
                f"The tokenizer in {tokenizer_home} has <IMG_CONTEXT> at id {token}, but the model has only "
                f"{model.dims.text.vocab} embeddings.",
                "Use the tokenizer that the checkpoint was saved with.",
            )
        config = to_hf_config(model.config.values, model.family, tensors, token, old.config if old else None)
        if config["vision_feature_layer"] != -1:
            notes.append(
                f"vision_feature_layer is {config['vision_feature_layer']}: transformers 5 reads that, 4.57 "
                f"and older fail with an AttributeError."
            )
    else:
        config, assumed = to_custom_config(
            model.config.values, model.family, tensors, old.config if old else None
        )
        if assumed:
            values = ", ".join(f"{name} {config[name]!r}" for name in assumed)
            notes.append(f"Neither sidecar nor --reference tells these, so they were assumed: {values}.")
        if model.family in {LLAMA, INTERNLM2}:
            says = f"as {old.origin} says" if old else "as no sidecar or --reference says otherwise"
            notes.append(f"The language model has {model.family.name}'s names, {says}.")
    if old is not None and config == old.config:
        return old.files[CONFIG_FILE], notes
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n", notes


def _tokenizer_home(source: Path, reference: Path | None, tokenizer: str | Path | None) -> Path:
    """The directory whose tokenizer files the output gets."""
    if tokenizer is not None:
        home = Path(tokenizer)
        if not has_tokenizer(home):
            raise ConfigError(f"{home} holds no tokenizer file.", "Give a directory that does.")
        return home
    return reference if reference is not None and not has_tokenizer(source) else source


def _compare_with_reference(output: Path, reference: Path | None, progress: Progress) -> Comparison | None:
    if reference is None or not has_weights(reference):
        return None
    return compare_models(output, reference, progress)


def _describe_failure(comparison: Comparison) -> str:
    if comparison.differences:
        first = comparison.differences[0]
        return (
            f"What was written is not what was read: {len(comparison.differences)} tensors differ, first "
            f"{first.key} at element {first.element}."
        )
    wrong = (*comparison.missing, *comparison.unexpected, *comparison.mismatched)
    return f"What was written is not what was planned: {', '.join(wrong[:3])}."


_DAMAGED_OUTPUT = (
    "The output was removed. The disk or the memory of this machine may be failing, or another program "
    "changed the source meanwhile: check both, then convert again."
)
