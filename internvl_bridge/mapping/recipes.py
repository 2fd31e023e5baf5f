"""How single tensors of a plan are made, in words: for reports."""

from collections.abc import Mapping
from math import prod
from typing import Literal

from internvl_bridge.mapping.numberless import numberless
from internvl_bridge.mapping.plan import Plan, Recipe, Run, TensorSpec

How = Literal["kept", "renamed", "split", "fused", "reordered"]
"""What happens to a tensor: nothing, a new name, a part of another, made of several, or of another in other order."""


def how_made(key: str, recipe: Recipe, sources: Mapping[str, TensorSpec]) -> How:
    """How the tensor ``key`` is made of the tensors ``sources``."""
    [first, *others] = recipe.runs
    if others and any(run.key != first.key for run in others):
        return "fused"
    source = sources[first.key]
    if recipe.spec != source and recipe.spec.elements != source.elements:
        return "split"
    if others:
        return "reordered"
    return "kept" if first.key == key else "renamed"


def made_of(recipe: Recipe, plan: Plan) -> str:
    """What a tensor of ``plan`` is made of, without the numbers of layers and experts."""
    if len(recipe.runs) > 3:
        names = sorted({numberless(run.key) for run in recipe.runs})
        return f"{len(recipe.runs)} runs of {', '.join(names)}"
    return " + ".join(_run_text(run, plan) for run in recipe.runs)


def _run_text(run: Run, plan: Plan) -> str:
    spec = plan.sources[run.key]
    if run.stop - run.start == spec.elements:
        return numberless(run.key)
    rows = range(run.start, run.stop)[:: prod(spec.shape[1:] if len(spec.shape) < 3 else spec.shape[2:])]
    if len(spec.shape) < 3:
        return f"{numberless(run.key)}[{rows.start // rows.step}:{rows.stop // rows.step}]"
    first = rows.start // rows.step % spec.shape[1]  # of one expert among those that are stacked
    return f"{numberless(run.key)}[*, {first}:{first + len(rows)}]"
