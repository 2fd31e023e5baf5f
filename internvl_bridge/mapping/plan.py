"""Plans: for every target tensor, where each run of its elements comes from.

A plan moves contiguous runs of row-major elements and computes nothing. So plans can be inverted, composed and compared
without looking at a single value.

What they are made of are named tuples: there are several for every tensor, and dataclasses take longer to make,
compare and hash.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from typing import NamedTuple

from internvl_bridge.errors import ContradictionError, ProofError


class TensorSpec(NamedTuple):
    """What a tensor is, without its values: a safetensors dtype name and a row-major shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)


class Run(NamedTuple):
    """The elements ``[start, stop)`` of the source tensor ``key``, in row-major order."""

    key: str
    start: int
    stop: int


class Recipe(NamedTuple):
    """One target tensor: its spec, and the runs that fill it, in order."""

    spec: TensorSpec
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """A conversion: the specs of the sources, and a recipe for every target key."""

    sources: Mapping[str, TensorSpec]
    recipes: Mapping[str, Recipe]

    @property
    def targets(self) -> dict[str, TensorSpec]:
        return {key: recipe.spec for key, recipe in self.recipes.items()}

    def restricted(self, is_wanted: Callable[[str], bool]) -> "Plan":
        """The part of the plan that makes the targets that are wanted."""
        return Plan(self.sources, {key: recipe for key, recipe in self.recipes.items() if is_wanted(key)})


def identity(specs: Mapping[str, TensorSpec]) -> Plan:
    """The plan that changes nothing."""
    return Plan(specs, {key: whole(key, spec) for key, spec in specs.items()})


def whole(key: str, spec: TensorSpec) -> Recipe:
    """The recipe that takes the tensor ``key`` as it is."""
    return Recipe(spec, (Run(key, 0, spec.elements),))


def joined(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The same elements in the fewest runs: neighbours of one tensor become one."""
    result: list[Run] = []
    for run in runs:
        if result and result[-1].key == run.key and result[-1].stop == run.start:
            result[-1] = Run(run.key, result[-1].start, run.stop)
        else:
            result.append(run)
    return tuple(result)


def invert(plan: Plan) -> Plan:
    """The plan that restores ``plan``'s sources from its targets.

    Raises ProofError unless every source element is used exactly once.
    """
    return Plan(plan.targets, dict(restored(plan)))


def restored(plan: Plan) -> Iterator[tuple[str, Recipe]]:
    """Every source key of ``plan`` with the recipe that restores it, one at a time; as :func:`invert`."""
    kept = {key for key, recipe in plan.recipes.items() if _keeps(recipe, key, plan.sources)}  # nearly all
    uses = _uses(plan, kept)
    for key, spec in plan.sources.items():
        yield key, plan.recipes[key] if key in kept else _restored(key, spec, uses[key])


_Use = tuple[Run, str, int]
"""A run of a source, the target that it is part of, and where it begins there."""


def _keeps(recipe: Recipe, key: str, sources: Mapping[str, TensorSpec]) -> bool:
    """Whether ``recipe`` makes the tensor ``key`` of all of itself and nothing else: then it is its own inverse."""
    spec, runs = recipe
    if len(runs) != 1 or sources.get(key) != spec:
        return False
    source, start, stop = runs[0]
    return source == key and start == 0 and stop == spec.elements


def _uses(plan: Plan, kept: AbstractSet[str]) -> dict[str, list[_Use]]:
    """How ``plan`` uses its sources, but for those ``kept``: these are used already, so nothing else may use them."""
    uses: dict[str, list[_Use]] = {key: [] for key in plan.sources.keys() - kept}
    for target, recipe in plan.recipes.items():
        if target in kept:
            continue
        offset = 0
        for run in recipe.runs:
            if run.key in kept:
                raise _not_used_once(run.start, run.key, "used twice")
            uses[run.key].append((run, target, offset))
            offset += run.stop - run.start
        if offset != recipe.spec.elements:
            raise ProofError(
                f"The plan fills {offset} of the {recipe.spec.elements} elements of {target}.",
                _REPORT_A_BUG,
            )
    return uses


def _restored(key: str, spec: TensorSpec, uses: list[_Use]) -> Recipe:
    """The source ``key`` from the targets that use it."""
    position = 0
    runs: list[Run] = []
    for run, target, offset in sorted(uses, key=lambda use: use[0].start):
        if run.start != position:
            used = "not used" if run.start > position else "used twice"
            raise _not_used_once(min(run.start, position), key, used)
        position = run.stop
        runs.append(Run(target, offset, offset + run.stop - run.start))
    if position != spec.elements:
        raise _not_used_once(position, key, "not used")
    return Recipe(spec, joined(runs))


def _not_used_once(element: int, key: str, used: str) -> ProofError:
    return ProofError(f"Element {element} of {key} is {used}.", _REPORT_A_BUG)


def compose(outer: Plan, inner: Plan) -> Plan:
    """``inner`` first, then ``outer``: one plan from inner's sources to outer's targets.

    Raises ContradictionError unless outer starts from exactly what inner makes.
    """
    made = inner.targets
    if made != outer.sources:
        changed = sorted(key for key in made.keys() | outer.sources.keys() if made.get(key) != outer.sources.get(key))
        raise ContradictionError(
            f"Two plans do not meet at {', '.join(changed[:3])}.",
            "The second must start from exactly the tensors that the first one makes.",
        )
    slicers = {key: _Slicer(recipe) for key, recipe in inner.recipes.items()}
    return Plan(
        inner.sources,
        {
            key: Recipe(recipe.spec, joined(piece for run in recipe.runs for piece in slicers[run.key](run)))
            for key, recipe in outer.recipes.items()
        },
    )


class _Slicer:
    """Answers which source runs lie behind a range of elements of one target."""

    __slots__ = ("_ends", "_runs")

    def __init__(self, recipe: Recipe) -> None:
        self._runs = recipe.runs
        self._ends = list(accumulate(run.stop - run.start for run in recipe.runs))

    def __call__(self, wanted: Run) -> Iterator[Run]:
        position = wanted.start
        index = bisect_right(self._ends, position)
        while position < wanted.stop:
            run, end = self._runs[index], self._ends[index]
            stop = min(end, wanted.stop)
            yield Run(run.key, run.stop - (end - position), run.stop - (end - stop))
            position, index = stop, index + 1


_REPORT_A_BUG = (
    "Nothing was written. This is a defect of internvl-bridge: please report it with the output of "
    "'internvl-bridge inspect' on this directory."
)
