"""The state dict of the model in what ``torch.save`` has written, which can hold much beside it. Imports torch."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from internvl_bridge.errors import CheckpointError, shown
from internvl_bridge.mapping.several_models import (
    TOP,
    IsModel,
    is_of_optimizer,
    is_of_other_use,
    not_there,
    several_models,
    several_parts,
)
from internvl_bridge.mapping.wrapped_names import clean_names

_USUAL = ("state_dict", "model", "module")
"""Under what trainers put the state dict, beside optimizers and counters."""
_DEEPEST = 8


@dataclass(frozen=True, slots=True)
class ChosenStateDict:
    """The ``tensors`` that are meant; under which ``name`` they are nested, None if they are not, and ``others``."""

    tensors: Mapping[str, torch.Tensor]
    name: str | None
    others: tuple[str, ...]


def chosen_state_dict(path: Path, content: object, is_model: IsModel, name: str | None) -> ChosenStateDict:
    """The state dict that is meant, which may be nested in the ``content`` of ``path``, and the names beside it.

    ``name`` says which of several; without it there must be one whose keys are those of a model. Raises CheckpointError
    for anything else, and for values that are not tensors.
    """
    if not isinstance(content, dict):
        raise _no_state_dict(path, f"holds {_article(content)} instead of a state dict")
    nested = {key: value for key, value in content.items() if isinstance(key, str) and _is_state_dict(value)}
    taken = _named(path, nested, name) if name is not None else _only(path, nested, content, is_model)
    state: Mapping[Any, Any] = content if taken is None else content[taken]
    if not state:
        raise _no_state_dict(path, "holds no tensors")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise _no_state_dict(path, f"holds {_article(value)} at {shown(key)}, where a tensor should be")
    others = () if taken is None else tuple(str(key)[:80] for key in content if key != taken)
    return ChosenStateDict(state, taken, others)


def _named(path: Path, nested: Mapping[str, object], name: str) -> str | None:
    """The nested state dict called ``name``. If it is in the only one there, or nothing is nested, it is a prefix."""
    if name in nested:
        return name
    if len(nested) < 2 or name == TOP:
        return next(iter(nested), None)
    raise not_there(path, name, nested)


def _only(path: Path, nested: Mapping[str, Any], content: Mapping[Any, Any], is_model: IsModel) -> str | None:
    """The nested state dict that must be meant; None where nothing is nested."""
    models = [key for key, state in nested.items() if is_model(state) or clean_names(state, is_model)]
    found = models or [key for key in _USUAL if isinstance(content.get(key), dict)]
    if len(found) > 1:
        raise several_models(path, found)
    if not found:
        return None
    ends = {_end(key) for key in content[found[0]]}
    alike, parts = [], []
    for name, value in content.items():
        if name == found[0] or is_of_optimizer(str(name)):
            continue
        keys = [key for key in _tensor_keys(value) if not is_of_optimizer(key)]
        is_average = is_of_other_use(found[0]) and 2 * len(keys) > len(
            ends
        )  # and the other, in whatever spelling, is not
        if is_average or 2 * len(ends.intersection(map(_end, keys))) > len(ends):
            alike.append(str(name))
        elif any(is_model([key]) for key in keys) and ends.isdisjoint(map(_end, keys)):
            parts.append(str(name))
    if alike:
        raise several_models(path, [found[0], *alike])
    if parts:
        raise several_parts(path, [found[0], *parts])
    return found[0]


def _tensor_keys(value: object, prefix: str = "", depth: int = 0) -> Iterator[str]:
    """The keys of all tensors in ``value``, however they are nested."""
    if not isinstance(value, dict) or depth > _DEEPEST:
        return
    for key, inner in value.items():
        if isinstance(inner, torch.Tensor):
            yield f"{prefix}{key}"
        else:
            yield from _tensor_keys(inner, f"{prefix}{key}.", depth + 1)


def _end(key: str) -> str:
    """What of a key no wrapper changes."""
    return ".".join(key.split(".")[-3:])


def _is_state_dict(value: object) -> bool:
    return isinstance(value, dict) and bool(value) and all(isinstance(v, torch.Tensor) for v in value.values())


def _no_state_dict(path: Path, problem: str) -> CheckpointError:
    return CheckpointError(f"{path} {problem}.", "Save the weights alone: torch.save(model.state_dict(), ...).")


def _article(value: object) -> str:
    return "a tensor" if isinstance(value, torch.Tensor) else f"a value of type {type(value).__name__}"
