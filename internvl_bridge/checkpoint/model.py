"""A checkpoint directory, read and understood."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from internvl_bridge.checkpoint.opened_weights import OpenedWeights
from internvl_bridge.checkpoint.unwrapping import base_weights
from internvl_bridge.checkpoint.weights import holds_weights, open_weights, whole_specs
from internvl_bridge.errors import BridgeError, CheckpointError, ConfigError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.lora.wrapped import is_wrapped, name_in_base
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.several_models import IsModel, model_keys_in
from internvl_bridge.mapping.spellings import KeySpelling, spelling_in
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.metadata.config.agreement import other_heads
from internvl_bridge.metadata.config.description import TEXT_SECTION, ModelDescription, describe
from internvl_bridge.metadata.config.file import detect_format, read_config
from internvl_bridge.metadata.json_files import JsonFile, as_text
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.metadata.other_format import OtherFormat, read_sidecar, reference_as_other_format
from internvl_bridge.storage.consumed import Consumption
from internvl_bridge.storage.source_shards import Checkpoint

TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True, slots=True)
class Source:
    """Where a checkpoint is: its ``weights``, and the ``config`` beside them or elsewhere, with the tokenizer.

    ``state_dict`` names the model that is meant, where the weights are those of several. ``consumption`` is what an
    earlier run has deleted of the weights. ``head_is_copy`` is what is known of an output head whose data is not here.
    """

    weights: Path
    config: Path | None = None
    state_dict: str | None = None
    consumption: Consumption | None = None
    head_is_copy: bool | None = None

    @property
    def home(self) -> Path:
        """The directory of config.json, and of all that is not weights."""
        return self.weights if self.config is None else self.config


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint on disk and what its headers and config.json say about it.

    ``specs`` are those of whole tensors, even where ``weights`` are kept in pieces; ``keys`` says how they
    are spelled. ``other_format`` is what is known about it in the other format. ``remarks`` say what contradicts itself
    on disk, and what was made of it. ``filled`` are the keys of tensors that are another checkpoint's: then ``parts``
    are the two models that this one was put together from. ``is_unwrapped``: an adapter lies beside its weights, which
    were told apart from it.
    """

    source: Source
    description: ModelDescription
    weights: OpenedWeights
    specs: Mapping[str, TensorSpec]
    keys: KeySpelling
    other_format: OtherFormat | None
    remarks: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    parts: tuple["Model", ...] = ()
    is_unwrapped: bool = False

    @property
    def directory(self) -> Path:
        """Where all of it is but its weights, which most often are there, too."""
        return self.source.home

    @property
    def has_all_data(self) -> bool:
        """Whether its weights are here, and not some of their headers alone."""
        return not any(shard.is_absent for shard in self.checkpoint.shards)

    @property
    def format(self) -> Format:
        return self.description.format

    @property
    def checkpoint(self) -> Checkpoint:
        return self.weights.checkpoint

    @property
    def dtype(self) -> str:
        """Torch's name of the dtype that most elements have."""
        sizes = dict.fromkeys(TORCH_NAMES, 0)
        for spec, count in Counter(self.specs.values()).items():  # few differ
            if spec.dtype in sizes:
                sizes[spec.dtype] += count * spec.elements
        return TORCH_NAMES[max(sizes, key=sizes.__getitem__)]


def read_model(source: Source, reference: Path | None = None, *, alone: bool = False, unwrap: bool = False) -> Model:
    """Read headers, index, config.json and sidecar of ``source``; no tensor data.

    ``reference`` is a model of the other format that states what this one's cannot; without it a
    sidecar beside config.json does, unless the model stands ``alone``: then nothing is asked of the other format.
    ``unwrap``: if PEFT has wrapped the model, its base model is read.
    Raises a BridgeError for anything that is not an InternVL checkpoint.
    """
    directory = source.home
    if not source.weights.is_dir():
        raise not_a_directory(source.weights)
    config = read_config(directory)
    wanted = detect_format(config).other
    weights = _opened(source, wanted.other)
    is_unwrapped = unwrap and is_wrapped(whole_specs(weights))
    if is_unwrapped:
        weights = base_weights(weights)
    specs = whole_specs(weights)
    if not model_keys_in(wanted.other)(specs) and model_keys_in(wanted)(specs):
        raise ConfigError(
            f"{config.path} is of the {wanted.other.value} format, but the weights in {source.weights} have the names "
            f"of the {wanted.value} format.",
            "Give the config.json that belongs to the weights: that of a model of the same format.",
        )
    other_format = None if alone else _other_format(directory, wanted, reference)
    named = other_format.description.family if other_format is not None else None
    description = describe(config, specs, named)
    remarks = (*weights.checkpoint.remarks, *weights.remarks)
    if resized := _resized(description, specs):
        stale, description = description.dims.text.vocab, describe(resized, specs, named)
        remarks = (*remarks, _on_vocabulary(stale, description.dims.text.vocab))
    if other_format is not None and named is not None and named.hf_model_type != description.family.hf_model_type:
        raise ConfigError(
            f"{config.path} describes a model with {description.family.name}, but {other_format.origin} is of one with "
            f"{named.name}.",
            "Give the reference that belongs to this checkpoint, or remove a sidecar that does not.",
        )
    if other_format is not None and (heads := other_heads(description, other_format.description)):
        raise ConfigError(
            f"{config.path} and {other_format.origin} divide the same tensors in two ways: {heads}.",
            "Correct the one that is wrong, or give the reference that belongs to this checkpoint.",
        )
    keys = spelling_in(wanted.other, specs, description.family)
    return Model(source, description, weights, specs, keys, other_format, remarks, is_unwrapped=is_unwrapped)


def read_other(directory: Path, what: str) -> Model:
    """As :func:`read_model`, for a directory that is ``what`` beside the source: nothing chooses a part of it."""
    try:
        return read_model(Source(directory), alone=True)
    except CheckpointError as error:
        if "--state-dict" not in error.remedy and "--config" not in error.remedy:
            raise
        raise CheckpointError(
            f"For {what}: {error.reason}", "Give a directory that holds config.json and the weights of one model."
        ) from error


def _resized(description: ModelDescription, specs: Mapping[str, TensorSpec]) -> JsonFile | None:
    """config.json with the vocab_size of the embeddings, if it states another one and no head contradicts them.

    Trainers that resize embeddings can leave the old number there.
    """
    format_, file = description.format, description.file
    keys = spelling_in(format_, specs, description.family)
    tie = tied_head(description.family, description.dims.text, keys)
    rows = {specs[key].shape[0] for key in (tie.embeddings, tie.head) if key in specs and len(specs[key].shape) == 2}
    if tie.embeddings not in specs or len(rows) != 1 or rows <= {0, description.dims.text.vocab}:
        return None
    section = TEXT_SECTION[format_]
    values = {**file.values, section: {**file.values[section], "vocab_size": rows.pop()}}
    return replace(file, values=values, text=as_text(values))


def _on_vocabulary(stale: int, rows: int) -> str:
    return (
        f"config.json has vocab_size {stale}, but the embeddings have {rows} rows, as after resizing. The output says "
        f"{rows}."
    )


def reopened(model: Model) -> OpenedWeights:
    """The weights of ``model`` as they are now. Raises as :func:`read_model`."""
    weights = _opened(model.source, model.format)
    return base_weights(weights) if model.is_unwrapped else weights


def opened_as_stored(model: Model) -> OpenedWeights:
    """The weights of ``model``, with those of an adapter that lie beside them."""
    return _opened(model.source, model.format)


def _opened(source: Source, format_: Format) -> OpenedWeights:
    return open_weights(source.weights, _model_keys_in(format_), source.state_dict, source.consumption)


def _model_keys_in(format_: Format) -> IsModel:
    """As :func:`model_keys_in`, also for those of a model that PEFT has wrapped."""
    is_model = model_keys_in(format_)
    return lambda keys: is_model(keys) or (is_wrapped(keys) and is_model([*map(name_in_base, keys)]))


def _other_format(directory: Path, wanted: Format, reference: Path | None) -> OtherFormat | None:
    if reference is None:
        return read_sidecar(directory, wanted)
    keys = whole_specs(open_weights(reference, model_keys_in(wanted))) if holds_weights(reference) else ()
    try:
        sidecar = read_sidecar(directory, wanted)
    except BridgeError:  # the reference takes its place
        sidecar = None
    return reference_as_other_format(read_config(reference), wanted, keys, sidecar)
