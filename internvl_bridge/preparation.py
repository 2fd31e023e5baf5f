"""Decide everything about a conversion and prove it, before anything is written."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from internvl_bridge.byte_plan import in_source_shards
from internvl_bridge.checked_plan import CheckedPlan
from internvl_bridge.errors import ConfigError, ContradictionError, UnsupportedModelError
from internvl_bridge.mapping.families import LLAMA
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.metadata.config_file import CONFIG_FILE, ConfigFile, Format
from internvl_bridge.metadata.described import describe
from internvl_bridge.metadata.files import carried_files, has_tokenizer, remote_code
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, kept_files, sidecar_text
from internvl_bridge.metadata.tokenizer import IMAGE_CONTEXT, find_token, image_token_id
from internvl_bridge.metadata.translation import TensorFacts, to_custom_config, to_hf_config
from internvl_bridge.model import Model, plan_conversion, read_model
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

# Fields of an HF text config that the custom format says elsewhere, or that say nothing about the model.
_SAID_OTHERWISE = {
    "model_type",
    "architectures",
    "tie_word_embeddings",
    "dtype",
    "torch_dtype",
    "transformers_version",
    "_name_or_path",
    "attention_bias",
    "mlp_bias",
    "head_dim",
    "pretraining_tp",
    "quantization_config",
}

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
    check_output(source, output)
    if model.format is wanted:
        raise UnsupportedModelError(
            f"{source} is already in the {wanted.value} format.",
            f"Use 'internvl-bridge {model.direction.value}' to convert it into the other one.",
        )
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
        notes.append(
            "The custom format's Python modules (*.py) are not part of the source; copy them from the "
            "original model, or give it as --reference, before loading with trust_remote_code."
        )
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
        config, notes = to_hf_config(described, tensors, token, old), list(_notes_to_hf(model, checked))
    else:
        config, assumed = to_custom_config(described, tensors, old)
        notes = list(_notes_to_custom(model, {name: config[name] for name in assumed}))
        notes.extend(_tokenizer_notes(model, tokenizer_home))
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


def _notes_to_hf(model: Model, checked: CheckedPlan) -> Iterator[str]:
    layer = model.described.values.get("select_layer", -1)
    if layer != -1:
        yield (
            f"vision_feature_layer is {layer}: transformers 5 reads that, 4.57 and older fail with an AttributeError."
        )
    if model.described.may_be_tied and not checked.tied:
        yield (
            "config.json says that the output head is the input embeddings, but the checkpoint has a head of its "
            "own: that one is used."
        )
    yield (
        "The output has weights, config.json and the tokenizer's files. It has no processor and no chat template "
        "of its own yet: AutoProcessor needs those of the model's official HF release."
    )


def _notes_to_custom(model: Model, assumed: Mapping[str, Any]) -> Iterator[str]:
    described, complement = model.described, model.complement
    if assumed:
        values = ", ".join(f"{name} {value!r}" for name, value in assumed.items())
        yield f"Neither sidecar nor --reference tells these, so they were assumed: {values}."
    if described.family.hf_model_type == LLAMA.hf_model_type:
        says = f"as {complement.origin} says" if complement else "as no sidecar or --reference says otherwise"
        yield f"The language model has {described.family.name}'s names, {says}."
    known = {field.hf for field in described.text_fields} | _SAID_OTHERWISE
    if unknown := sorted(described.text.keys() - known):
        yield (
            f"These fields of text_config are unknown to this version and were left out (the sidecar keeps them): "
            f"{', '.join(unknown)}."
        )


def _tokenizer_notes(model: Model, tokenizer_home: Path) -> Iterator[str]:
    """What is odd about the tokenizer of an HF source; the custom format needs no token id."""
    stated = model.described.values.get("image_token_id")
    found = set(find_token(tokenizer_home, IMAGE_CONTEXT).values())
    if not has_tokenizer(tokenizer_home):
        yield f"{tokenizer_home} holds no tokenizer, so that the output has none: copy the base model's."
    elif found != {stated}:
        ids = ", ".join(map(str, sorted(found))) or "no id"
        yield (
            f"config.json says that image_token_id is {stated}, but the tokenizer has {ids} for "
            f"{IMAGE_CONTEXT}. The custom format asks the tokenizer."
        )


def _tokenizer_home(source: Path, reference: Path | None, tokenizer: str | Path | None) -> Path:
    """The directory whose tokenizer files the output gets."""
    if tokenizer is not None:
        home = Path(tokenizer)
        if not has_tokenizer(home):
            raise ConfigError(f"{home} holds no tokenizer file.", "Give a directory that does.")
        return home
    return reference if reference is not None and not has_tokenizer(source) else source
