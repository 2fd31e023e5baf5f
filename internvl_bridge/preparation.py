"""Decide everything about a conversion and prove it, before anything is written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from internvl_bridge.byte_plan import in_source_shards
from internvl_bridge.checked_plan import CheckedPlan
from internvl_bridge.errors import ConfigError, ContradictionError, UnsupportedModelError
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.metadata.config_file import CONFIG_FILE, ConfigFile, Format
from internvl_bridge.metadata.described import describe
from internvl_bridge.metadata.files import carried_files, has_tokenizer, remote_code
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, kept_files, sidecar_text
from internvl_bridge.metadata.tokenizer import IMAGE_CONTEXT, image_token_id
from internvl_bridge.metadata.translation import TensorFacts, to_custom_config, to_hf_config
from internvl_bridge.model import Model, plan_conversion, read_model
from internvl_bridge.notes import NO_REMOTE_CODE, notes_to_custom, notes_to_hf
from internvl_bridge.sizes import parse_size
from internvl_bridge.storage.checkpoint import INDEX_FILE, has_weights
from internvl_bridge.storage.layout import (
    FileJob,
    aligned,
    by_name,
    file_jobs,
    index_of,
    needs_index,
    reshard,
)
from internvl_bridge.storage.publishing import check_output

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

    ``jobs`` are the safetensors files and ``index`` the contents of their index; ``texts`` are other
    files, by name, with their contents, and ``copies`` files to copy as they are.
    """

    model: Model
    output: Path
    plan: Plan
    jobs: tuple[FileJob, ...]
    index: Mapping[str, object] | None
    texts: Mapping[str, str]
    copies: tuple[Path, ...]
    notes: tuple[str, ...]
    reference: Path | None
    verify: bool

    @property
    def data_bytes(self) -> int:
        return sum(job.data_size for job in self.jobs)

    @property
    def files(self) -> tuple[str, ...]:
        weights = [job.name for job in self.jobs] + ([INDEX_FILE] if self.index else [])
        return tuple(sorted({*weights, *self.texts, *(path.name for path in self.copies)}))

    @property
    def left_behind(self) -> tuple[str, ...]:
        """Files of the source that the output has neither as they are, nor converted, nor in its sidecar."""
        weights = {shard.path.name for shard in self.model.checkpoint.shards}
        used = {INDEX_FILE, SIDECAR_FILE, *weights, *kept_files(self.model.format), *self.files}
        return tuple(sorted({path.name for path in self.model.directory.iterdir()} - used))


def prepare(source: str | Path, output: str | Path, wanted: Format, options: Options) -> Conversion:
    """Decide everything about a conversion and prove it; write nothing."""
    source, output = Path(source), Path(output)
    if options.order not in get_args(Order):
        raise ConfigError(f"{options.order!r} is not an order.", "Use 'source' or 'name'.")
    limit = None if options.max_shard_size is None else parse_size(options.max_shard_size)
    reference = None if options.reference is None else Path(options.reference)
    model = read_model(source, reference)
    if model.format is wanted:
        raise UnsupportedModelError(
            f"{source} is already in the {wanted.value} format.",
            f"Use 'internvl-bridge {model.direction.value}' to convert it into the other one.",
        )
    check_output(source, output)
    if reference is not None and has_weights(reference):
        read_model(reference)  # a reference that cannot be compared with must not surprise at the end
    checked = plan_conversion(model)
    shards = in_source_shards(checked.plan, model.checkpoint)
    shards = shards if limit is None else reshard(shards, limit)
    jobs = file_jobs([by_name(shard) if options.order == "name" else aligned(shard) for shard in shards])

    tokenizer_home = _tokenizer_home(source, reference, options.tokenizer)
    config, notes = _config(model, checked, tokenizer_home)
    texts = {
        CONFIG_FILE: config,
        SIDECAR_FILE: sidecar_text(source, model.format, model.described.family.name),
    }
    if model.complement is not None:
        texts = {**model.complement.files, **texts}
    code = remote_code(reference) if reference and wanted is Format.CUSTOM else []
    copies = [*carried_files(source, tokenizer_home), *code]
    if wanted is Format.CUSTOM and not code:
        notes.append(NO_REMOTE_CODE)
    return Conversion(
        model=model,
        output=output,
        plan=checked.plan,
        jobs=tuple(jobs),
        index=index_of(jobs, model.checkpoint.index_metadata) if needs_index(jobs) else None,
        texts=texts,
        copies=tuple(copies),
        notes=tuple(notes),
        reference=reference,
        verify=options.verify,
    )


def _config(model: Model, checked: CheckedPlan, tokenizer_home: Path) -> tuple[str, list[str]]:
    """The text of the output's config.json, and notes about it."""
    tensors = TensorFacts(tied=checked.tied, mxfp4=checked.mxfp4, dtype=model.dtype)
    old = model.complement.described if model.complement else None
    described = model.described
    if model.format is Format.CUSTOM:
        token = _image_token(model, tokenizer_home)
        config, notes = to_hf_config(described, tensors, token, old), list(notes_to_hf(model, checked))
    else:
        config, assumed = to_custom_config(described, tensors, old)
        notes = list(notes_to_custom(model, {name: config[name] for name in assumed}, tokenizer_home))
    made = describe(ConfigFile(Path(CONFIG_FILE), "", config), model.specs, described.family)
    if made.dims != described.dims:
        raise ConfigError(
            f"{described.file.path} and the sidecar or reference describe models of different sizes.",
            "Give the reference that belongs to this checkpoint, or remove internvl_bridge.json.",
        )
    if model.complement is not None and old is not None and config == old.file.values:
        return model.complement.files[CONFIG_FILE], notes
    return json.dumps(config, indent=2, ensure_ascii=False) + "\n", notes


def _image_token(model: Model, tokenizer_home: Path) -> int:
    token, embeddings = image_token_id(tokenizer_home), model.described.dims.text.vocab
    if token >= embeddings:
        raise ContradictionError(
            f"The tokenizer in {tokenizer_home} has {IMAGE_CONTEXT} at id {token}, but the model has only "
            f"{embeddings} embeddings.",
            "Use the tokenizer that the checkpoint was saved with.",
        )
    return token


def _tokenizer_home(source: Path, reference: Path | None, tokenizer: str | Path | None) -> Path:
    """The directory whose tokenizer files the output gets."""
    if tokenizer is not None:
        home = Path(tokenizer)
        if not has_tokenizer(home):
            raise ConfigError(f"{home} holds no tokenizer file.", "Give a directory that does.")
        return home
    return reference if reference is not None and not has_tokenizer(source) else source
