"""What an adapter changes in the tensors of a checkpoint: which rows of each, and by which of its factors.

The adapter may name the base's modules in another way than the checkpoint does: the plan between both says which rows
are which. Parts of a fused matrix need not be scaled alike, and some of them may be left alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from internvl_bridge.errors import ContradictionError, UnsupportedModelError, first_few
from internvl_bridge.mapping.lora.factors import MERGE_IN_PEFT, Region
from internvl_bridge.mapping.lora.keys import Part
from internvl_bridge.mapping.lora.lifting import rows_of
from internvl_bridge.mapping.lora.stored import Adapter, Specs
from internvl_bridge.mapping.plan import Plan, Recipe


@dataclass(frozen=True, slots=True)
class RowChange:
    """Rows of a tensor, seen as a matrix, from ``row`` on get ``scale`` times ``b`` ``[rows, rank]`` times ``a``.

    ``a`` is ``[rank, columns]``; without it ``b`` itself is added, which is then a column. ``magnitude`` ``[rows, 1]``
    is the length that each row is given afterwards (DoRA).
    """

    row: int
    scale: float
    b: Region
    a: Region | None
    magnitude: Region | None = None


@dataclass(frozen=True, slots=True)
class Replacement:
    """The elements ``[start, stop)`` of a tensor are those of the adapter's tensor ``key`` from ``first`` on."""

    start: int
    stop: int
    key: str
    first: int


@dataclass(frozen=True, slots=True)
class TensorChange:
    """What an adapter does to one tensor: first it replaces elements, then it adds to rows."""

    replaced: tuple[Replacement, ...]
    rows: tuple[RowChange, ...]

    def replaces(self, elements: int) -> bool:
        """Whether one tensor takes the place of the whole one, which has so many elements."""
        return any((part.start, part.stop) == (0, elements) for part in self.replaced)


TokensOf = Mapping[str, Sequence[int]]
"""By the name of a weight in the adapter's spelling, which of its rows were trained."""


def changes_of(adapter: Adapter, plan: Plan, tokens: TokensOf) -> dict[str, TensorChange]:
    """What ``adapter`` changes in the targets of ``plan``, which starts from the base as the adapter names it.

    Raises ContradictionError for what does not fit the base. Raises UnsupportedModelError for DoRA of embeddings.
    """
    _check_tokens(adapter, plan.sources, tokens)
    biases = _biases(adapter, plan.sources)
    matrices = {matrix.key for matrix in adapter.matrices}
    found: dict[str, TensorChange] = {}
    for key, recipe in plan.recipes.items():
        replaced = [*_replaced_whole(recipe, adapter), *_replaced_rows(recipe, adapter, plan.sources, tokens)]
        rows = [*_added_to_bias(recipe, biases), *_of_renamed(recipe, adapter, plan.sources)]
        if any(run.key in matrices for run in recipe.runs):
            rows += _of_matrices(key, recipe, adapter, plan.sources)
        if replaced or rows:
            found[key] = TensorChange(tuple(replaced), tuple(rows))
    return found


def _replaced_whole(recipe: Recipe, adapter: Adapter) -> Iterator[Replacement]:
    position = 0
    for run in recipe.runs:
        stop = position + run.stop - run.start
        if run.key in adapter.whole:
            yield Replacement(position, stop, adapter.whole[run.key][0], run.start)
        position = stop


def _replaced_rows(recipe: Recipe, adapter: Adapter, sources: Specs, tokens: TokensOf) -> Iterator[Replacement]:
    name = recipe.runs[0].key
    if name in adapter.tokens:
        width = sources[name].shape[-1]
        for number, row in enumerate(tokens[name]):
            yield Replacement(row * width, (row + 1) * width, adapter.tokens[name], number * width)


def _of_matrices(key: str, recipe: Recipe, adapter: Adapter, sources: Specs) -> Iterator[RowChange]:
    for target, rows in rows_of(key, recipe, sources):
        lora = adapter.matrices.get(rows.source)
        if lora is None:
            continue
        taken = (rows.start, rows.start + rows.count)
        magnitude = lora.rows.get(Part.MAGNITUDE)
        yield RowChange(
            (target.expert or 0) * recipe.spec.shape[-2] + rows.row,
            lora.scaling.value,
            lora.b.part(rows=taken),
            lora.a,
            None if magnitude is None else magnitude.part(rows=taken),
        )


def _biases(adapter: Adapter, sources: Specs) -> dict[str, tuple[Region, float]]:
    """The vectors that are added to biases of the base, by the names of these, and their scaling."""
    found = {
        f"{matrix.key.removesuffix('weight')}bias": (lora.rows[Part.BIAS], lora.scaling.value)
        for matrix, lora in adapter.matrices.items()
        if Part.BIAS in lora.rows
    } | {
        f"{weight.removesuffix('weight')}bias": (_column(adapter, changed.parts[Part.BIAS]), changed.scaling.value)
        for weight, changed in adapter.renamed.items()
        if Part.BIAS in changed.parts
    }
    if absent := [vector.key for name, (vector, _) in found.items() if name not in sources]:
        raise ContradictionError(
            f"The adapter adds {first_few(absent)} to biases that the base model does not have.",
            "Give the base model that the adapter was trained on.",
        )
    return found


def _column(adapter: Adapter, key: str) -> Region:
    return Region(key, (0, adapter.specs[key].elements), (0, 1))


def _added_to_bias(recipe: Recipe, biases: Mapping[str, tuple[Region, float]]) -> Iterator[RowChange]:
    position = 0
    for run in recipe.runs:
        if run.key in biases:
            vector, scale = biases[run.key]
            yield RowChange(position, scale, vector.part(rows=(run.start, run.stop)), None)
        position += run.stop - run.start


def _of_renamed(recipe: Recipe, adapter: Adapter, sources: Specs) -> Iterator[RowChange]:
    """The changes of embeddings, whose factors are stored transposed, and of a convolution."""
    name = recipe.runs[0].key
    changed = adapter.renamed.get(name)
    if changed is None:
        return
    parts, rank, scale = changed.parts, changed.scaling.rank, changed.scaling.value
    count, columns = sources[name].shape[0], prod(sources[name].shape[1:])
    if Part.EMBEDDING_A in parts:
        if Part.MAGNITUDE in parts:
            raise UnsupportedModelError(
                f"The adapter changes {name} with DoRA ({parts[Part.MAGNITUDE]}), which scales its columns. That is "
                f"not merged.",
                MERGE_IN_PEFT,
            )
        b = Region(parts[Part.EMBEDDING_A], (0, rank), (0, count), transposed=True)
        a = Region(parts[Part.EMBEDDING_B], (0, columns), (0, rank), transposed=True)
        yield RowChange(0, scale, b, a)
        return
    magnitude = None
    if Part.MAGNITUDE in parts:
        if prod(adapter.specs[parts[Part.MAGNITUDE]].shape) != count:
            raise ContradictionError(
                f"{parts[Part.MAGNITUDE]} does not have one element for each of the {count} rows of {name}.",
                "Give the base model that the adapter was trained on.",
            )
        magnitude = Region(parts[Part.MAGNITUDE], (0, 1), (0, count), transposed=True)
    yield RowChange(
        0,
        scale,
        Region(parts[Part.B], (0, count), (0, rank)),
        Region(parts[Part.A], (0, rank), (0, columns)),
        magnitude,
    )


def _check_tokens(adapter: Adapter, sources: Specs, tokens: TokensOf) -> None:
    """Raise ContradictionError unless every trained row has its place."""
    for name, key in adapter.tokens.items():
        stated, shape = tokens.get(name, ()), adapter.specs[key].shape
        rows, width = sources[name].shape[0], sources[name].shape[-1]
        if shape != (len(stated), width) or not all(0 <= row < rows for row in stated):
            raise ContradictionError(
                f"{key} has shape {list(shape)}, but the adapter's config names {len(stated)} tokens, and {name} has "
                f"{rows} rows of {width}.",
                "Use the adapter_config.json that the adapter was saved with.",
            )
