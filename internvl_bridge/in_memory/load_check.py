"""Open a checkpoint with the installed transformers, and look whether every tensor is in its place and it computes."""

import gc
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import torch

from internvl_bridge.checkpoint.model import Model, Source, read_model
from internvl_bridge.errors import OptionError
from internvl_bridge.in_memory.load_check_result import LoadCheck, LogitDifference, Prompted
from internvl_bridge.in_memory.loading import is_in_layers
from internvl_bridge.in_memory.opening import (
    Opened,
    open_checkpoint_model,
    open_on_meta,
    open_processor,
    opening_call,
    quiet_transformers,
)
from internvl_bridge.in_memory.prompting import Inputs, made_up_inputs, prompt_inputs
from internvl_bridge.in_memory.stored_parameters import NOTHING, Parameters, compared_with_files, described
from internvl_bridge.places.fetching import fetched
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.storage.header import DTYPE_BITS

_PACKAGES = {
    "torchvision": "torchvision",
    "PIL": "pillow",
    "tokenizers": "tokenizers",
    "sentencepiece": "sentencepiece",
}
"""What a checkpoint may need beside transformers and torch: modules, and the packages that have them."""
_TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
_COARSE = 0.03
"""By how much logits may differ for sums in another order, in units of the largest: by dtype, and in shorter ones."""
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which a system states the memory of a process."""
_Result = TypeVar("_Result")


def check_load(
    path: str | Path, *, against: str | Path | None = None, layers: int | None = None, meta: bool = False
) -> LoadCheck:
    """Open a checkpoint as its user would, run one prompt with a made-up image, and say what was seen.

    An HF checkpoint is opened by ``AutoModelForImageTextToText`` and ``AutoProcessor``. A custom one is opened by
    :func:`internvl_bridge.load_pretrained`, which shows its weights and does not run upstream's code. Every parameter
    is compared with the files.

    Args:
        path: Directory of a checkpoint of either format, or its place on the hub (``hf://owner/name``).
        against: Directory of another one. It gets the same inputs, and the logits are compared.
        layers: Open only so many layers of each tower, for models that do not fit into memory.
        meta: Compare names and shapes only: no weights are read, and nothing is computed.

    Returns:
        What transformers said and computed, and what it needed.

    Raises:
        OptionError: The options contradict each other, or the model does not fit into memory.
        BridgeError: ``path`` or ``against`` is not an InternVL checkpoint at all.

    Example:
        >>> import internvl_bridge
        >>> internvl_bridge.check_load("my-finetune-HF", against="InternVL3_5-8B").ok
        True
    """
    started = time.monotonic()
    if layers is not None and layers < 1:
        raise OptionError(f"{layers} is not a number of layers.", "Use 1 or more.")
    if meta and against is not None:
        raise OptionError("On meta nothing is computed, so there is nothing to compare.", "Leave out against or meta.")
    model = read_model(Source(fetched(path).directory), alone=True)
    other = None if against is None else read_model(Source(fetched(against).directory), alone=True)
    dims = model.description.dims
    if layers is not None and layers >= max(dims.text.layers, dims.vision.layers):
        layers = None  # those are all
    if not meta:
        for needed in (model, *([other] if other else [])):
            _check_memory(needed, layers)
    with quiet_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours = _seen(model, layers, meta=meta)
        gc.collect()  # the first model has to go before the second one comes
        theirs = _other_seen(other, layers, ours.inputs) if other and ours.logits is not None else None
    return LoadCheck(
        path=str(path),
        format=model.format.value,
        opened_by=opening_call(model.format),
        imported=_imported(),
        error=ours.error,
        layers=layers,
        on_meta=meta,
        parameters=ours.parameters.count,
        bytes=ours.parameters.bytes,
        dtype=ours.parameters.dtype,
        missing=ours.missing,
        unexpected=ours.unexpected,
        mismatched=ours.mismatched,
        changed=ours.parameters.changed,
        as_stored=ours.parameters.as_stored,
        processor=ours.processor,
        processor_error=ours.processor_error,
        prompted=ours.prompted,
        against=_difference(str(against), ours, theirs) if theirs else None,
        against_error=theirs.error if theirs else None,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT,
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    """What was seen of one model. Nothing here keeps it in memory."""

    error: str | None = None
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    parameters: Parameters = NOTHING
    processor: str | None = None
    processor_error: str | None = None
    own_inputs: Inputs | None = None
    inputs: Inputs | None = None
    logits: torch.Tensor | None = None
    prompted: Prompted | None = None


def _seen(model: Model, layers: int | None, *, meta: bool = False, given: Inputs | None = None) -> _Seen:
    """Open ``model``, and run it on the inputs that are ``given``, else on a prompt of its own."""
    opened, error = _attempt(lambda: open_on_meta(model, layers) if meta else open_checkpoint_model(model, layers))
    if opened is None:
        return _Seen(error)
    processor, processor_error = _attempt(lambda: open_processor(model))
    name = None if processor is None else type(processor).__name__
    keys = (opened.missing, opened.unexpected, opened.mismatched)
    if meta:
        return _Seen(None, *keys, described(opened.model), name, processor_error)
    parameters, error = _attempt(lambda: compared_with_files(opened.model, model))
    if parameters is None:
        return _Seen(error, *keys, described(opened.model), name, processor_error)
    own = None
    if processor is not None:
        own, processor_error = _attempt(lambda: prompt_inputs(processor, opened.model.config))
    inputs = given or own or made_up_inputs(opened.model.config)
    logits, error = _attempt(lambda: _logits(opened, inputs))
    prompted = None if logits is None else _prompted(logits, inputs, processor)
    return _Seen(error, *keys, parameters, name, processor_error, own, inputs, logits, prompted)


def _other_seen(model: Model, layers: int | None, given: Inputs | None) -> _Seen:
    """As :func:`_seen`, of the model that is compared with; there must still be room for it."""
    _check_memory(model, layers)
    return _seen(model, layers, given=given)


def _attempt(work: Callable[[], _Result]) -> tuple[_Result | None, str | None]:
    """What ``work`` returns, or what it raises in a line: whatever transformers raises is an answer here."""
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001
        return None, f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


@torch.no_grad()
def _logits(opened: Opened, inputs: Inputs) -> torch.Tensor:
    """The logits of all tokens, in float32."""
    values = {
        name: value.to(opened.model.dtype) if value.is_floating_point() else value
        for name, value in inputs.values.items()
    }
    logits: torch.Tensor = opened.model(**values).logits[0].float()
    return logits


def _prompted(logits: torch.Tensor, inputs: Inputs, processor: Any) -> Prompted:
    token, _ = _attempt(lambda: processor.tokenizer.decode([int(logits[-1].argmax())]))
    return Prompted(inputs.source, inputs.tokens, bool(logits.isfinite().all()), token)


def _difference(path: str, ours: _Seen, theirs: _Seen) -> LogitDifference | None:
    if ours.logits is None or theirs.logits is None:
        return None
    if ours.logits.shape != theirs.logits.shape:  # another vocabulary
        return LogitDifference(path, inf, inf, agrees=False, same_next_token=False, same_inputs=None)
    if torch.equal(ours.logits.view(torch.int32), theirs.logits.view(torch.int32)):  # where both are NaN, too
        return LogitDifference(
            path, 0.0, 0.0, agrees=True, same_next_token=True, same_inputs=_same_inputs(ours, theirs)
        )
    largest, reference = float((ours.logits - theirs.logits).abs().max()), float(ours.logits.abs().max())
    relative = largest / reference if reference else largest
    tolerance = max(_TOLERANCES.get(side.parameters.dtype or "", _COARSE) for side in (ours, theirs))
    return LogitDifference(
        path=path,
        largest=largest,
        relative=relative,
        agrees=relative <= tolerance,
        same_next_token=int(ours.logits[-1].argmax()) == int(theirs.logits[-1].argmax()),
        same_inputs=_same_inputs(ours, theirs),
    )


def _same_inputs(ours: _Seen, theirs: _Seen) -> bool | None:
    return ours.own_inputs.equals(theirs.own_inputs) if ours.own_inputs and theirs.own_inputs else None


def _check_memory(model: Model, layers: int | None) -> None:
    """Raise OptionError if the parameters of ``model`` take more memory than there is."""
    needed = sum(
        spec.elements * DTYPE_BITS[spec.dtype] // 8
        for key, spec in model.specs.items()
        if layers is None or is_in_layers(key, layers)
    )
    there = _available_memory()
    if there is not None and needed > there:
        raise OptionError(
            f"{model.directory} takes {human_size(needed)} of memory, and {human_size(there)} are available.",
            "Open some layers only (--layers 2, layers=2), or compare names and shapes (--meta, meta=True).",
        )


def _available_memory() -> int | None:
    """Bytes that can be had without swapping, None where Linux does not say it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    stated = (line.split() for line in lines if line.startswith("MemAvailable:"))
    return next((int(words[1]) * 1024 for words in stated), None)


def _imported() -> dict[str, str]:
    """The versions of what was needed."""
    packages = {"transformers", "torch", *(package for module, package in _PACKAGES.items() if module in sys.modules)}
    return {package: found for package in sorted(packages) if (found := _attempt(partial(version, package))[0])}
