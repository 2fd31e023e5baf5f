"""Open a checkpoint with the installed transformers as its user would. Imports transformers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.utils import logging as transformers_logging

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.model_plan import plan_model
from internvl_bridge.in_memory.loading import directory_beside, is_in_layers, load_model, load_processor, with_layers
from internvl_bridge.in_memory.stored_parameters import plan_to_names_of, unknown_keys
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.spellings import MOST_COMPATIBLE, spelling_of
from internvl_bridge.mapping.tied_head import tied_head

_VERSION = tuple(int(number) for number in transformers.__version__.split(".")[:2])
DTYPE = {"dtype" if _VERSION >= (4, 56) else "torch_dtype": "auto"}
"""How from_pretrained is asked for the dtype of the files."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that was opened, and what transformers says about its keys, but for layers that were left out."""

    model: Any
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]


def opening_call(format_: Format) -> str:
    """The call by which a checkpoint of the format ``format_`` is opened."""
    if format_ is Format.CUSTOM:
        return "internvl_bridge.load_pretrained, which shows the weights and not upstream's code"
    return "AutoModelForImageTextToText"


def open_checkpoint_model(model: Model, layers: int | None) -> Opened:
    """Open ``model``, or its first ``layers`` of each tower. Raises whatever transformers raises."""
    place = model.directory
    if model.format is Format.CUSTOM:
        opened, info = load_model(model, dict(DTYPE), layers=layers)
    else:
        config = _untyped("AutoConfig").from_pretrained(place, trust_remote_code=False, local_files_only=True)
        opened, info = _untyped("AutoModelForImageTextToText").from_pretrained(
            place,
            config=config if layers is None else with_layers(config, layers),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported, and all of them
            trust_remote_code=False,
            local_files_only=True,
            **DTYPE,
        )
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys")
    missing, unexpected, mismatched = (
        tuple(sorted(key for key in map(_name, info.get(kind, ())) if layers is None or is_in_layers(key, layers)))
        for kind in kinds
    )
    return Opened(opened.eval(), missing, unexpected, mismatched)


def open_processor(model: Model) -> Any:
    """Open the processor of ``model``. Raises whatever transformers raises."""
    if model.format is Format.CUSTOM:
        return load_processor(model.directory)
    return _untyped("AutoProcessor").from_pretrained(model.directory, trust_remote_code=False, local_files_only=True)


def open_on_meta(model: Model, layers: int | None) -> Opened:
    """The model that config.json describes, without memory for its parameters, and how its names and shapes differ."""
    with _hf_directory(model) as directory:
        config = _untyped("AutoConfig").from_pretrained(directory, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        empty = _untyped("AutoModelForImageTextToText").from_config(
            config if layers is None else with_layers(config, layers)
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
    stored = {name: spec.shape for name, spec in plan_to_names_of(shapes, model).targets.items()}
    if layers is not None:
        stored = {name: shape for name, shape in stored.items() if is_in_layers(name, layers)}
    keys = spelling_of(shapes, model.description.family)
    head = tied_head(model.description.family, model.description.dims.text, keys).head
    tied = {head} if model.description.may_be_tied else set()
    unexpected = {*unknown_keys(shapes, model), *(stored.keys() - shapes.keys())}
    if head in stored and model.format is Format.HF and _VERSION < (5, 0) and _is_tied(empty):
        unexpected.add(head)
    return Opened(
        empty,
        missing=tuple(sorted(shapes.keys() - stored.keys() - tied)),
        unexpected=tuple(sorted(unexpected)),
        mismatched=tuple(sorted(name for name in stored.keys() & shapes.keys() if stored[name] != shapes[name])),
    )


@contextmanager
def _hf_directory(model: Model) -> Iterator[Path]:
    """A directory with the HF config.json of ``model``."""
    if model.format is Format.HF:
        yield model.directory
        return
    with directory_beside(model, plan_model(model, MOST_COMPATIBLE, stores_copy=False)) as directory:
        yield directory


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Let transformers show neither warnings nor progress: the report has what they would say."""
    logging: Any = transformers_logging
    level = logging.get_verbosity()
    shows = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shows:
            logging.enable_progress_bar()


def _is_tied(opened: Any) -> bool:
    """Whether the output head is the input embeddings in memory. Version 4 then does not load a head from the files."""
    head, embeddings = opened.get_output_embeddings(), opened.get_input_embeddings()
    return head is not None and head.weight is embeddings.weight


def _untyped(name: str) -> Any:
    """What transformers calls ``name``, which has no types there. Raises what importing that raises."""
    return getattr(transformers, name)


def _name(key: Any) -> str:
    """A key, also where it comes with the two shapes that do not match."""
    return str(key[0]) if isinstance(key, tuple) else str(key)
