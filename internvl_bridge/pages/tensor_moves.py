"""Which tensors of a conversion went where, as a list to search."""

from collections.abc import Iterator, Sequence

from internvl_bridge.checkpoint.computed_tensors import ComputedTensor, Term
from internvl_bridge.convert.moves import AdapterMoves, Moves
from internvl_bridge.errors import first_few
from internvl_bridge.mapping.components import place_of
from internvl_bridge.mapping.numberless import numberless
from internvl_bridge.mapping.plan import Plan, Recipe, TensorSpec
from internvl_bridge.mapping.recipes import how_made, made_of
from internvl_bridge.pages.tensor_list import Column, Size, TensorList, TensorRow, key_numbers
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.storage.header import byte_length

_SPEC_COLUMNS = (
    Column("Dtype", "choice", is_shared=True),
    Column("Shape", "text", is_shared=True),
    Column("Size", "size", is_shared=True),
)
_COLUMNS = (
    Column("Made of", "text", is_shared=True),
    Column("How", "choice", is_shared=True),
    Column("Part of the model", "choice", is_shared=True),
    *_SPEC_COLUMNS,
    Column("File", "choice"),
)
_ITSELF = "itself"
_MOST_TERMS = 3
"""Products that a text names."""


def tensor_moves(moves: Moves | AdapterMoves) -> TensorList:
    """Every tensor of an output: what it is made of, and, of a checkpoint, how and in which file."""
    if isinstance(moves, AdapterMoves):
        return TensorList("tensors", (Column("Made of", "text"), *_SPEC_COLUMNS), tuple(_adapter_rows(moves)))
    return TensorList("tensors", _COLUMNS, tuple(_rows(moves)))


def way_of(moves: Moves, key: str) -> str:
    """How the tensor ``key`` of the output is made."""
    return "computed" if key in moves.computed else how_made(key, moves.plan.recipes[key], moves.plan.sources)


def bytes_of(spec: TensorSpec) -> int:
    """The bytes of a tensor."""
    return byte_length(spec.dtype, spec.elements) or 0


def _rows(moves: Moves) -> Iterator[TensorRow]:
    specs = moves.specs
    for shard in moves.shards:
        for key in shard.keys:
            text = _computed_text(moves.computed[key]) if key in moves.computed else _moved_text(key, moves.plan)
            yield TensorRow(key, (text, way_of(moves, key), place_of(key).text, *_spec_cells(specs[key]), shard.name))


def _adapter_rows(moves: AdapterMoves) -> Iterator[TensorRow]:
    for key, entry in moves.entries.items():
        yield TensorRow(key, (" + ".join(moves.sources[key]), *_spec_cells(TensorSpec(entry.dtype, entry.shape))))


def _spec_cells(spec: TensorSpec) -> tuple[str, str, Size]:
    size = bytes_of(spec)
    return spec.dtype, " x ".join(map(str, spec.shape)) or "scalar", Size(size, human_size(size))


def _moved_text(key: str, plan: Plan) -> str:
    """What the tensor ``key`` is made of; a star stands for the number of ``key`` in that place.

    Where a source has another number there, as no known model has it, the text names it.
    """
    recipe = plan.recipes[key]
    if how_made(key, recipe, plan.sources) == "kept":
        return _ITSELF
    return made_of(recipe, plan) if _has_numbers_of(key, recipe) else first_few([run.key for run in recipe.runs])


def _has_numbers_of(key: str, recipe: Recipe) -> bool:
    ours = key_numbers(key)
    return all(_agree(ours, key_numbers(run.key)) for run in recipe.runs)


def _agree(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    return all(one == other for one, other in zip(ours, theirs, strict=False))


def _computed_text(computed: ComputedTensor) -> str:
    """What is added to a tensor, if anything is."""
    terms = computed.terms
    if len(terms) > _MOST_TERMS:
        return f"{_ITSELF} + {len(terms)} products"
    return " + ".join((_ITSELF, *map(_product_text, terms)))


def _product_text(term: Term) -> str:
    factors = [term.b, term.a] if term.a else [term.b]
    return " x ".join((f"{term.scale:g}", *(numberless(factor.region.key) for factor in factors)))
