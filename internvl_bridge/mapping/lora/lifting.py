"""Lift a plan of weights to adapters: the rows of a converted matrix bring the factors that change them along.

If a target matrix takes rows of one source, it gets the source's A, and those rows of its B. If it takes rows of
several, it gets their A one below the other. Its B has a block for each of them, and zeros elsewhere. So B A changes
every row as it did before. No second table says how: the plan of the weights does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import log2

from internvl_bridge.errors import ContradictionError, UnsupportedModelError, first_few
from internvl_bridge.mapping.lora.factors import MERGE, Lora, Region, Scaling
from internvl_bridge.mapping.lora.keys import Part
from internvl_bridge.mapping.lora.stored import Adapter, Matrix, Renamed, Specs
from internvl_bridge.mapping.plan import Plan, Recipe

Columns = Mapping[Matrix, tuple[int, int]]
"""Which columns ``[start, stop)`` of a B belong to each of the target matrices that it is split into."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A region of a source, and where its first row and column lie in a matrix."""

    source: Region
    row: int
    column: int = 0
    exponent: int = 0


@dataclass(frozen=True, slots=True)
class LiftedLora:
    """What changes a target matrix of so many ``rows`` and ``columns``: what its A and B hold beside zeros.

    ``vectors`` are a bias and magnitudes, by what they are.
    """

    rows: int
    columns: int
    scaling: Scaling
    a: tuple[Placed, ...]
    b: tuple[Placed, ...]
    vectors: Mapping[Part, tuple[Placed, ...]]


@dataclass(frozen=True, slots=True)
class LiftedAdapter:
    """The changes in terms of the target's matrices, weights and parameters."""

    matrices: Mapping[Matrix, LiftedLora]
    renamed: Mapping[str, Renamed]
    whole: Mapping[str, tuple[Recipe, bool]]
    tokens: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Rows:
    """So many rows of ``source`` from ``start`` on, which are those of a target from ``row`` on."""

    source: Matrix
    start: int
    count: int
    row: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What only the values of factors show.

    ``blocks`` are the sources whose B consists of a block for each target, and of zeros beside them: then each target
    gets its own block, and those rows of A that belong to it. ``shared`` are the targets whose sources all have one
    A and one scaling, as after a split: then that A is enough.
    """

    blocks: Mapping[Matrix, Columns] = field(default_factory=dict)
    shared: frozenset[Matrix] = frozenset()


NOTHING = Findings()


def lift(adapter: Adapter, plan: Plan, findings: Findings = NOTHING) -> LiftedAdapter:
    """What becomes of ``adapter`` where its base becomes what ``plan`` says.

    Raises UnsupportedModelError for what no adapter of the target can say, and ContradictionError if a tensor would not
    be used.
    """
    origins = _origins(adapter, plan)
    _check_used(adapter, origins)
    lifted = {target: _lifted(target, rows, adapter, plan, findings) for target, rows in origins.items()}
    own = {target: columns for parts in findings.blocks.values() for target, columns in parts.items()}
    matrices = {target: lora for target, old in lifted.items() if (lora := _with_columns(old, own.get(target)))}
    names = {recipe.runs[0].key: key for key, recipe in plan.recipes.items() if _is_rename(recipe, plan)}
    renamed = {names[key]: changed for key, changed in adapter.renamed.items()}
    whole = _lifted_whole(adapter, plan, {*renamed, *(target.key for target in matrices)})
    tokens = {names[key]: tensor for key, tensor in adapter.tokens.items()}
    return LiftedAdapter(matrices, renamed, whole, tokens)


def _is_rename(recipe: Recipe, plan: Plan) -> bool:
    return len(recipe.runs) == 1 and plan.sources[recipe.runs[0].key].shape == recipe.spec.shape


def _origins(adapter: Adapter, plan: Plan) -> dict[Matrix, list[Rows]]:
    """Where the rows of those target matrices come from that the adapter changes."""
    changed = {matrix.key for matrix in adapter.matrices}
    found: dict[Matrix, list[Rows]] = {}
    for key, recipe in plan.recipes.items():
        if any(run.key in changed for run in recipe.runs):
            for target, rows in rows_of(key, recipe, plan.sources):
                found.setdefault(target, []).append(rows)
    return {target: rows for target, rows in found.items() if any(part.source in adapter.matrices for part in rows)}


def rows_of(key: str, recipe: Recipe, sources: Specs) -> Iterator[tuple[Matrix, Rows]]:
    """The rows of the target ``key``, matrix by matrix, each run of rows of one source matrix."""
    width, height = recipe.spec.shape[-1], recipe.spec.shape[-2]
    row = 0
    for run in recipe.runs:
        shape = sources[run.key].shape
        start, stop = run.start // width, run.stop // width
        while start < stop:
            count = min(stop - start, shape[-2] - start % shape[-2], height - row % height)
            source = Matrix(run.key, start // shape[-2] if len(shape) == 3 else None)
            target = Matrix(key, row // height if len(recipe.spec.shape) == 3 else None)
            yield target, Rows(source, start % shape[-2], count, row % height)
            start, row = start + count, row + count


def splits(adapter: Adapter, plan: Plan) -> dict[Matrix, dict[Matrix, list[tuple[int, int]]]]:
    """The changed matrices that ``plan`` splits: their targets in the order of their rows, and which rows each gets."""
    found: dict[Matrix, list[tuple[int, int, Matrix]]] = {}
    for target, rows in _origins(adapter, plan).items():
        for part in rows:
            found.setdefault(part.source, []).append((part.start, part.start + part.count, target))
    ordered: dict[Matrix, dict[Matrix, list[tuple[int, int]]]] = {}
    for source, places in found.items():
        parts: dict[Matrix, list[tuple[int, int]]] = {}
        for start, stop, target in sorted(places):
            parts.setdefault(target, []).append((start, stop))
        if len(parts) > 1 and source in adapter.matrices:
            ordered[source] = parts
    return ordered


def fusions(adapter: Adapter, plan: Plan) -> dict[Matrix, list[Matrix]]:
    """The target matrices that ``plan`` makes of several changed ones, all scaled alike: which those are."""
    found: dict[Matrix, list[Matrix]] = {}
    for target, rows in _origins(adapter, plan).items():
        sources = [*dict.fromkeys(part.source for part in rows if part.source in adapter.matrices)]
        if len(sources) > 1 and len({adapter.matrices[source].scaling for source in sources}) == 1:
            found[target] = sources
    return found


def fused_ranks(adapter: Adapter, plan: Plan, findings: Findings) -> dict[Matrix, tuple[int, ...]]:
    """The ranks of all parts of the matrices that ``plan`` fuses, in the order of their rows; 0 of absent ones."""
    found: dict[Matrix, tuple[int, ...]] = {}
    for target, rows in _origins(adapter, plan).items():
        sources = [*dict.fromkeys(part.source for part in rows)]
        if len(sources) > 1 and target not in findings.shared:
            loras = (adapter.matrices.get(source) for source in sources)
            found[target] = tuple(0 if lora is None else lora.scaling.rank for lora in loras)
    return found


def _with_columns(lora: LiftedLora, columns: tuple[int, int] | None) -> LiftedLora | None:
    """``lora`` without the columns of its B that are zero, and the rows of A that they belong to; None if all are."""
    if columns is None:
        return lora
    rank = columns[1] - columns[0]
    if not rank:
        return None
    a = tuple(replace(placed, source=placed.source.part(rows=columns)) for placed in lora.a)
    b = tuple(replace(placed, source=placed.source.part(columns=columns)) for placed in lora.b)
    return replace(lora, scaling=lora.scaling.with_rank(rank), a=a, b=b)


def _check_used(adapter: Adapter, origins: Mapping[Matrix, Sequence[Rows]]) -> None:
    """Raise ContradictionError unless every row of every changed matrix gets into one target."""
    counts = dict.fromkeys(adapter.matrices, 0)
    for rows in origins.values():
        for part in rows:
            if part.source in counts:
                counts[part.source] += part.count
    if wrong := [source.key for source, count in counts.items() if count != adapter.matrices[source].b.shape[0]]:
        raise _defect(wrong)


def _defect(keys: Sequence[str]) -> ContradictionError:
    return ContradictionError(
        f"The plan of the base does not say what becomes of {first_few(keys)}.",
        "This is a defect of internvl-bridge: please report it.",
    )


def _lifted(target: Matrix, rows: Sequence[Rows], adapter: Adapter, plan: Plan, findings: Findings) -> LiftedLora:
    parts = {part.source: adapter.matrices[part.source] for part in rows if part.source in adapter.matrices}
    absent = sorted({part.source.key for part in rows} - {source.key for source in parts})
    scaling, exponents = _common_scaling(target, parts)
    offsets: dict[Matrix, int] = {}
    rank = 0
    for source, lora in parts.items():
        offsets[source] = 0 if target in findings.shared else rank
        rank = offsets[source] + lora.scaling.rank
    vectors: dict[Part, list[Placed]] = {}
    b: list[Placed] = []
    for part in rows:
        if part.source not in parts:
            continue
        lora, exponent, taken = parts[part.source], exponents[part.source], (part.start, part.start + part.count)
        b.append(Placed(lora.b.part(rows=taken), part.row, offsets[part.source], exponent))
        for kind, vector in lora.rows.items():
            power = exponent if kind is Part.BIAS else 0
            vectors.setdefault(kind, []).append(Placed(vector.part(rows=taken), part.row, exponent=power))
    if absent and Part.MAGNITUDE in vectors:
        raise UnsupportedModelError(
            f"The adapter changes {first_few([source.key for source in parts])} with DoRA, but not "
            f"{first_few(absent)}. {target.key} is made of all of them, and DoRA would change the others, too.",
            MERGE,
        )
    shape = plan.recipes[target.key].spec.shape
    a = {offsets[source]: Placed(lora.a, offsets[source]) for source, lora in reversed(parts.items())}
    kinds = {kind: tuple(placed) for kind, placed in vectors.items()}
    return LiftedLora(shape[-2], shape[-1], scaling.with_rank(rank), tuple(reversed(a.values())), tuple(b), kinds)


def _common_scaling(target: Matrix, parts: Mapping[Matrix, Lora]) -> tuple[Scaling, dict[Matrix, int]]:
    """One scaling for all ``parts``, and the powers of two by which the B of each makes up for it."""
    largest = max((lora.scaling for lora in parts.values()), key=lambda scaling: scaling.value)
    ratios = {source: Fraction(lora.scaling.value) / Fraction(largest.value) for source, lora in parts.items()}
    if odd := [source for source, ratio in ratios.items() if ratio.numerator != 1 or not _is_power(ratio.denominator)]:
        raise UnsupportedModelError(
            f"{target.key} is made of parts that the adapter scales differently: {odd[0].key} by "
            f"{parts[odd[0]].scaling.value:g}, others by {largest.value:g}. One scaling for all would have to round.",
            MERGE,
        )
    return largest, {source: -int(log2(ratio.denominator)) for source, ratio in ratios.items()}


def _is_power(number: int) -> bool:
    return number & (number - 1) == 0


def _lifted_whole(adapter: Adapter, plan: Plan, adapted: set[str]) -> dict[str, tuple[Recipe, bool]]:
    """The parameters that the adapter replaces, made of its own tensors as the plan makes them of the base's."""
    found: dict[str, tuple[Recipe, bool]] = {}
    used: set[str] = set()
    for key, recipe in plan.recipes.items():
        needed = {run.key for run in recipe.runs}
        have = needed & adapter.whole.keys()
        if not have:
            continue
        if have != needed:
            raise UnsupportedModelError(
                f"The adapter replaces {first_few(sorted(have))} as a whole, and {key} is made of "
                f"{first_few(sorted(needed - have))}, too.",
                MERGE,
            )
        weight = f"{key.rpartition('.')[0]}.weight"
        found[key] = recipe, weight in adapted
        used |= have
    if unused := sorted(adapter.whole.keys() - used):
        raise _defect(unused)
    return found
