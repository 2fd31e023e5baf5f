"""The tensors of a converted adapter, as PEFT stores them: their keys, shapes, and the blocks that they consist of."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from internvl_bridge.errors import ContradictionError, UnsupportedModelError, first_few
from internvl_bridge.mapping.lora.factors import MERGE, Block, FactorRecipe, Region, Scaling
from internvl_bridge.mapping.lora.keys import AdapterKey, Part, key_of, parsed_key
from internvl_bridge.mapping.lora.lifting import LiftedAdapter, LiftedLora, Placed
from internvl_bridge.mapping.lora.stored import STACKED, Orientation, Specs, expert_lora
from internvl_bridge.mapping.plan import Recipe


@dataclass(frozen=True, slots=True)
class PackedAdapter:
    """A converted adapter: its tensors by key, and what its config has to say of them.

    ``factors`` are made of blocks, ``renamed`` and ``whole`` of runs of other tensors. ``modules`` and ``parameters``
    are those that it changes, by full name. ``saved`` are the keys of parameters that it replaces, and whether they
    lie within a changed module. ``tokens`` are the modules with trained rows, and what they were called before.
    """

    factors: Mapping[str, FactorRecipe]
    renamed: Mapping[str, str]
    whole: Mapping[str, Recipe]
    modules: Mapping[str, Scaling]
    parameters: Mapping[str, Scaling]
    saved: Mapping[str, bool]
    tokens: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all its tensors."""
        return (*self.factors, *self.renamed, *self.whole)


def packed_adapter(lifted: LiftedAdapter, base: Specs, dtypes: Mapping[str, str], way: Orientation) -> PackedAdapter:
    """The tensors that say what ``lifted`` does to a model with the tensors ``base``, in the target's spelling.

    ``dtypes`` are those of the source's tensors. ``way`` is how PEFT takes the experts of GPT-OSS. Raises
    UnsupportedModelError for experts of one parameter that are scaled differently.
    """
    factors: dict[str, FactorRecipe] = {}
    modules: dict[str, Scaling] = {}
    parameters: dict[str, Scaling] = {}
    stacked: dict[str, dict[int, LiftedLora]] = {}
    for matrix, lora in lifted.matrices.items():
        if matrix.expert is not None:
            stacked.setdefault(matrix.key, {})[matrix.expert] = lora
            continue
        module = matrix.key.removesuffix(".weight")
        modules[module] = lora.scaling
        factors |= _dense(module, lora, dtypes)
    for key, experts in stacked.items():
        if any(lora.vectors for lora in experts.values()):
            raise UnsupportedModelError(
                f"The adapter changes {key} with biases or magnitudes (DoRA), which PEFT does not have for experts "
                f"in one parameter.",
                f"Convert it for transformers 4 (--transformers 4). {MERGE}",
            )
        parameters[key] = _stacked_scaling(key, experts.values())
        place = AdapterKey(key.rpartition(".")[0], Part.A, _depth(key, stacked))
        factors |= _experts(place, experts, _Stack(base[key].shape, parameters[key], way), dtypes)
    renamed: dict[str, str] = {}
    for key, changed in lifted.renamed.items():
        module = key.removesuffix(".weight")
        modules[module] = changed.scaling
        renamed |= {key_of(AdapterKey(module, part)): tensor for part, tensor in changed.parts.items()}
    tokens: dict[str, str] = {}
    for key, tensor in lifted.tokens.items():
        tokens[key.removesuffix(".weight")] = parsed_key(tensor).name
        renamed[key_of(AdapterKey(key.removesuffix(".weight"), Part.TOKENS))] = tensor
    whole = {
        key_of(AdapterKey(key, Part.WHOLE, int(is_within))): recipe for key, (recipe, is_within) in lifted.whole.items()
    }
    saved = {key: is_within for key, (_, is_within) in lifted.whole.items()}
    return PackedAdapter(factors, renamed, whole, modules, parameters, saved, tokens)


def _dense(module: str, lora: LiftedLora, dtypes: Mapping[str, str]) -> Iterator[tuple[str, FactorRecipe]]:
    rank = lora.scaling.rank
    target = {
        Part.A: (lora.a, (rank, lora.columns)),
        Part.B: (lora.b, (lora.rows, rank)),
        **{kind: (placed, (lora.rows, 1)) for kind, placed in lora.vectors.items()},
    }
    for part, (placed, matrix) in target.items():
        key = key_of(AdapterKey(module, part))
        whole = Region(key, (0, matrix[0]), (0, matrix[1]))
        shape = matrix if part in {Part.A, Part.B} else matrix[:1]
        yield key, FactorRecipe(_dtype(placed, dtypes), shape, matrix, tuple(_blocks(placed, whole)))


@dataclass(frozen=True, slots=True)
class _Stack:
    """A parameter of so many experts, rows and columns, how its factors are scaled, and how PEFT takes it."""

    shape: tuple[int, ...]
    scaling: Scaling
    way: Orientation


def _experts(
    place: AdapterKey, experts: Mapping[int, LiftedLora], stack: _Stack, dtypes: Mapping[str, str]
) -> dict[str, FactorRecipe]:
    """One pair of factors for all ``experts`` of a parameter; those that nothing changes have zeros."""
    count, rows, columns = stack.shape
    rank = stack.scaling.rank * count
    names = {part: key_of(replace(place, part=part)) for part in (Part.A, Part.B)}
    inside, outside = (rows, columns) if stack.way is Orientation.TRANSPOSED else (columns, rows)
    sides = {Part.A: (rank, inside), Part.B: (outside, rank)}
    blocks: dict[str, list[Block]] = {name: [] for name in names.values()}
    for number, lora in experts.items():
        target = expert_lora(names, (rows, columns), (number, count), stack.scaling, stack.way)
        for region, placed in ((target.a, lora.a), (target.b, lora.b)):
            blocks[region.key] += _blocks(placed, region)
    dtype = _dtype([placed for lora in experts.values() for placed in (*lora.a, *lora.b)], dtypes)
    return {names[part]: FactorRecipe(dtype, side, side, tuple(blocks[names[part]])) for part, side in sides.items()}


def _blocks(placed: Iterable[Placed], target: Region) -> Iterator[Block]:
    for part in placed:
        height, width = part.source.shape
        region = target.part(rows=(part.row, part.row + height), columns=(part.column, part.column + width))
        yield Block(part.source, region, part.exponent)


def _stacked_scaling(key: str, experts: Iterable[LiftedLora]) -> Scaling:
    """The scaling of all ``experts``, at the largest of their ranks."""
    scalings = [lora.scaling for lora in experts]
    if len({scaling.value for scaling in scalings}) > 1:
        raise UnsupportedModelError(
            f"{key} holds all experts, and the adapter scales them differently. One scaling would have to round.",
            MERGE,
        )
    return max(scalings, key=lambda scaling: scaling.rank)


def _depth(key: str, stacked: Iterable[str]) -> int:
    """How many wrappers are outside of that of the parameter ``key``: those of the ones that come after it."""
    module, _, parameter = key.rpartition(".")
    return sum(f"{module}.{other}" in stacked for other in STACKED[STACKED.index(parameter) + 1 :])


def _dtype(placed: Iterable[Placed], dtypes: Mapping[str, str]) -> str:
    found = {dtypes[part.source.key]: part.source.key for part in placed}
    if len(found) > 1:
        raise ContradictionError(
            f"{first_few([*found.values()])} become one tensor, and are of different dtypes: {', '.join(found)}.",
            "Save the adapter again with one dtype for all of its factors.",
        )
    return next(iter(found))
