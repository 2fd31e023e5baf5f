"""Compare the parameters of a model that was opened with the files that it was opened from."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.checkpoint.weights import stored_plan
from internvl_bridge.in_memory.mapped_tensors import each_mapped_tensor
from internvl_bridge.mapping.make_plan import unmatched_keys
from internvl_bridge.mapping.packing import packing_in
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.spellings import spelling_of


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a model: their number, their size, and the dtype of the model; None without one.

    ``changed`` are the names of those that are not what the files hold. ``as_stored`` counts those that are; None if
    they were not compared.
    """

    count: int
    bytes: int
    dtype: str | None
    changed: tuple[str, ...]
    as_stored: int | None


NOTHING = Parameters(0, 0, None, (), None)
"""Where no model opened."""


def compared_with_files(opened: Any, model: Model) -> Parameters:
    """The parameters of ``opened``, each compared with that of ``model`` on disk, in the dtype that it was opened in.

    transformers replaces what it does not find by random numbers. Some versions do so without a word.
    """
    state = opened.state_dict()
    changed: list[str] = []
    as_stored = None
    if packing_in(model.specs) is None:
        plan = plan_to_names_of(state, model).restricted(state.__contains__)
        stored = each_mapped_tensor(stored_plan(plan, model.weights), model.checkpoint)
        same = {name: _is_same(state[name], tensor) for name, tensor in stored}
        changed = [name for name, is_same in same.items() if not is_same]
        as_stored = len(same) - len(changed)
    return replace(described(opened), changed=tuple(changed), as_stored=as_stored)


def plan_to_names_of(state: Collection[str], model: Model) -> Plan:
    """The tensors of ``model`` under the names of a state dict ``state``; some of either may be missing."""
    unknown = {*unknown_keys(state, model)}
    return plan_route(_route(state, model), {key: spec for key, spec in model.specs.items() if key not in unknown})


def unknown_keys(state: Collection[str], model: Model) -> list[str]:
    """The tensors of ``model`` for which no model has a name."""
    return unmatched_keys(_route(state, model).first_table, model.format.other, model.specs)


def _route(state: Collection[str], model: Model) -> Route:
    description = model.description
    keys = spelling_of(state, description.family)
    return Route(description.family, description.dims.text, model.keys, keys)


def described(opened: Any) -> Parameters:
    """The parameters of ``opened``, compared with nothing."""
    parameters = list(opened.parameters())
    return Parameters(
        count=sum(parameter.numel() for parameter in parameters),
        bytes=sum(parameter.numel() * parameter.element_size() for parameter in parameters),
        dtype=str(opened.dtype).removeprefix("torch."),
        changed=(),
        as_stored=None,
    )


def _is_same(opened: torch.Tensor, stored: torch.Tensor) -> bool:
    """Whether both hold the same values; where a NaN is in both, too."""
    ours, theirs = opened.detach().contiguous().reshape(-1), stored.to(opened.dtype).contiguous().reshape(-1)
    return opened.shape == stored.shape and torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8))
