"""The in-memory interpreter of plans: torch state dicts, converted without touching a value."""

from collections.abc import Mapping
from math import sqrt
from pathlib import Path
from typing import Any, Literal

import torch

from internvl_bridge.checked_plan import checked_plan
from internvl_bridge.distance import squared_distance
from internvl_bridge.errors import ConfigError, ContradictionError
from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import FAMILIES, Family, Table
from internvl_bridge.mapping.plan import Plan, Recipe, TensorSpec
from internvl_bridge.mapping.planning import Direction, make_plan, unmatched_keys
from internvl_bridge.mapping.spellings import L1, SPELLINGS, Spelling, respell, spelled, spelling_of
from internvl_bridge.metadata.config_file import ConfigFile
from internvl_bridge.metadata.described import describe

StateDict = Mapping[str, torch.Tensor]

_UNKNOWN_DIMS = TextDims("", 1, 1, 1, 1, 1, 1, 1, attention_bias=False, mlp_bias=False, experts=None)


def convert_state_dict(
    tensors: StateDict,
    direction: Literal["to-hf", "to-custom"],
    *,
    config: Mapping[str, Any] | None = None,
    spelling: Literal["L1", "L2", "L3"] = "L1",
) -> dict[str, torch.Tensor]:
    """Convert a state dict in memory; dtypes, devices and values stay as they are.

    ``config`` is the contents of config.json of either format. With it the state dict must be
    complete and of the shapes it describes; without it every key must still be understood and every
    group complete, but InternLM2's fused projections cannot be split. HF keys are recognised in any
    spelling; ``spelling`` is the one to produce: L1 as on disk, L2 as ``model.state_dict()`` has it.

    Tensors that are only renamed are returned themselves, and parts of a fused one as views of it
    where it is contiguous. Raises a BridgeError that names the keys and the remedy.
    """
    specs = {key: TensorSpec(str(tensor.dtype), tuple(tensor.shape)) for key, tensor in tensors.items()}
    plan = plan_state_dict(specs, Direction(direction), config, spelling)
    return {key: _gather(recipe, tensors) for key, recipe in plan.recipes.items()}


def plan_state_dict(
    specs: Mapping[str, TensorSpec],
    direction: Direction,
    config: Mapping[str, Any] | None,
    spelling: str = "L1",
) -> Plan:
    """The plan behind :func:`convert_state_dict`, from specs alone."""
    if direction is Direction.TO_HF:
        ours = next((known for known in SPELLINGS if known.name == spelling), None)
    else:
        ours = spelling_of(specs)
    if ours is None:
        raise ConfigError(f"{spelling!r} is no spelling of HF keys.", "Use 'L1', 'L2' or 'L3'.")
    if config is None:
        return make_plan(spelled(_table_for(specs, ours, direction), ours), specs, direction)
    described = describe(ConfigFile(Path("config"), "", config), specs)
    return checked_plan(described, specs, direction, ours).plan


def compute_l2_distance(left: torch.nn.Module | StateDict, right: torch.nn.Module | StateDict) -> float:
    """The Euclidean distance between two models or state dicts, over all their tensors, in float64.

    The square root of the sum of all squared differences; NaN if any difference is. Raises
    ContradictionError unless both have the same keys and shapes: nothing is skipped.
    """
    ours, theirs = _state_dict(left), _state_dict(right)
    wrong = sorted(
        key
        for key in ours.keys() | theirs.keys()
        if key not in ours or key not in theirs or ours[key].shape != theirs[key].shape
    )
    if wrong:
        raise ContradictionError(
            f"The two state dicts cannot be compared: {', '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''} is missing in one of them or has "
            f"another shape there.",
            "Compare models of the same architecture and format.",
        )
    return sqrt(sum(squared_distance(ours[key], theirs[key]) for key in ours))


def _gather(recipe: Recipe, tensors: StateDict) -> torch.Tensor:
    shape = recipe.spec.shape
    parts = [tensors[run.key].reshape(-1)[run.start : run.stop] for run in recipe.runs]
    whole = tensors[recipe.runs[0].key]
    if len(parts) == 1 and whole.shape == shape:
        return whole
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(shape)


def _table_for(specs: Mapping[str, TensorSpec], spelling: Spelling, direction: Direction) -> Table:
    """The rows of the family that explains the keys best; families that tie rename alike."""
    keys = list(specs) if direction is Direction.TO_HF else list(respell(specs, spelling, L1).recipes)

    def unexplained(family: Family) -> int:
        return len(unmatched_keys(family.table(_UNKNOWN_DIMS), keys, direction))

    family = min(FAMILIES, key=unexplained)
    if any(key.endswith(("attention.wqkv.weight", "attention.wqkv.bias")) for key in specs):
        raise ConfigError(
            "The state dict has InternLM2's fused attention.wqkv, which cannot be split without the numbers of heads.",
            "Pass the contents of the model's config.json as config.",
        )
    return family.table(_UNKNOWN_DIMS)


def _state_dict(model: torch.nn.Module | StateDict) -> StateDict:
    return model.state_dict() if isinstance(model, torch.nn.Module) else model
