"""The tensors of an adapter, found to be changes of the matrices and parameters of its base model."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from math import prod
from typing import NamedTuple

from internvl_bridge.errors import ContradictionError, UnknownKeyError, first_few
from internvl_bridge.mapping.lora.factors import Lora, Region, Scaling
from internvl_bridge.mapping.lora.keys import Part, parsed_key
from internvl_bridge.mapping.plan import TensorSpec

Specs = Mapping[str, TensorSpec]
Parts = Mapping[Part, str]
ScalingOf = Callable[[str, int], Scaling]
"""The scaling of a module or parameter, by its name and the rank of its factors."""
STACKED = ("gate_up_proj", "down_proj")
"""The parameters of a module that holds experts, in the order in which PEFT wraps it: the first is the innermost."""


class Matrix(NamedTuple):
    """A matrix of the base: a weight, or that of one ``expert`` in a parameter that holds all of them."""

    key: str
    expert: int | None = None


class Orientation(Enum):
    """How PEFT takes a parameter ``[experts, rows, columns]``: as it is, or each expert's matrix transposed.

    PEFT transposes where the module that holds it says ``is_transposed``, as GPT-OSS does in transformers 5
    (peft 0.21, tuners/lora/layer.py, ParamWrapper).
    """

    AS_STORED = "as stored"
    TRANSPOSED = "transposed"


@dataclass(frozen=True, slots=True)
class Renamed:
    """Factors of a weight that is only renamed, as it is not a matrix of rows: of embeddings, or of a convolution."""

    parts: Parts
    scaling: Scaling


@dataclass(frozen=True, slots=True)
class Adapter:
    """The changes that an adapter makes: by matrices, by weights and by parameters of its base.

    ``whole`` are the tensors that take the place of parameters, and whether they lie within an adapted module.
    ``tokens`` are rows of embeddings. ``guessed``: shapes do not show how experts are meant.
    """

    specs: Specs
    matrices: Mapping[Matrix, Lora]
    renamed: Mapping[str, Renamed]
    whole: Mapping[str, tuple[str, bool]]
    tokens: Mapping[str, str]
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """How tensors of an adapter are meant: ``scaling_of`` modules, the ``parameters`` that its config names.

    ``orientation`` is how transformers took experts, where their shapes do not show it.
    """

    scaling_of: ScalingOf
    parameters: Collection[str] = ()
    orientation: Orientation = Orientation.AS_STORED


def stored_adapter(specs: Specs, base: Specs, reading: Reading) -> Adapter:
    """Understand the tensors ``specs`` of an adapter of a model with the tensors ``base``, in its own spelling.

    Raises UnknownKeyError for tensors that fit nothing in ``base``, and ContradictionError for shapes that do not.
    """
    groups: dict[tuple[str, int], dict[Part, str]] = {}
    whole: dict[str, tuple[str, bool]] = {}
    tokens: dict[str, str] = {}
    for key in specs:
        found = parsed_key(key)
        if found.part is Part.WHOLE:
            whole[found.name] = key, bool(found.depth)
        elif found.part is Part.TOKENS:
            tokens[f"{found.name}.weight"] = key
        else:
            groups.setdefault((found.name, found.depth), {})[found.part] = key
    weights = {place: _weight(place, parts, groups, base, specs, reading) for place, parts in groups.items()}
    strange = [key for place, parts in groups.items() if weights[place] is None for key in parts.values()]
    strange += [key for name, (key, _) in whole.items() if name not in base]
    strange += [key for name, key in tokens.items() if name not in base]
    if strange:
        raise _not_of_base(strange, specs)
    for name, (key, _) in whole.items():
        _check_shape(key, specs, base[name].shape)
    matrices: dict[Matrix, Lora] = {}
    renamed: dict[str, Renamed] = {}
    stacks = [(weights[place] or "", parts) for place, parts in groups.items()]
    shown = [_ways(parts, base[weight].shape, specs) for weight, parts in stacks if len(base[weight].shape) == 3]
    known = next((ways[0] for ways in shown if len(ways) == 1), reading.orientation)
    guessed = bool(shown) and all(len(ways) > 1 for ways in shown)
    for weight, parts in stacks:
        spec = base[weight]
        if len(spec.shape) not in {2, 3, 4} or (Part.EMBEDDING_A in parts and len(spec.shape) != 2):
            raise _not_a_matrix(weight, parts, spec.shape)
        if Part.EMBEDDING_A in parts or len(spec.shape) == 4:
            renamed[weight] = _renamed(weight, parts, spec.shape, specs, reading)
        elif len(spec.shape) == 3:
            matrices |= _experts(weight, parts, spec.shape, specs, replace(reading, orientation=known))
        else:
            matrices[Matrix(weight)] = _dense(weight, parts, spec.shape, specs, reading)
    return Adapter(specs, matrices, renamed, whole, tokens, guessed)


def _weight(
    place: tuple[str, int],
    parts: Parts,
    groups: Collection[tuple[str, int]],
    base: Specs,
    specs: Specs,
    reading: Reading,
) -> str | None:
    """The weight or the parameter of the base that the factors ``parts`` at ``place`` change; None if there is none."""
    name, depth = place
    if f"{name}.weight" in base:
        return None if depth else f"{name}.weight"
    stacked = [f"{name}.{parameter}" for parameter in STACKED if f"{name}.{parameter}" in base]
    if (name, 1) in groups or depth:
        return stacked[0 if depth else 1] if len(stacked) == 2 and depth < 2 else None
    named = [key for key in stacked if any(key.endswith(parameter) for parameter in reading.parameters)] or stacked
    fitting = [key for key in named if _fits(parts, base[key].shape, specs)]
    return next(iter([*fitting, *named]), None)


def _fits(parts: Parts, shape: tuple[int, ...], specs: Specs) -> bool:
    found = {specs[parts[part]].shape[side] for part, side in ((Part.A, 1), (Part.B, 0)) if part in parts}
    return found == {*shape[1:]}


def _dense(weight: str, parts: Parts, shape: tuple[int, ...], specs: Specs, reading: Reading) -> Lora:
    rank = _rank(weight, parts, specs, Part.A)
    rows, columns = shape
    _check_shape(parts[Part.A], specs, (rank, columns))
    _check_shape(parts[Part.B], specs, (rows, rank))
    vectors = {part: parts[part] for part in (Part.BIAS, Part.MAGNITUDE) if part in parts}
    for key in vectors.values():
        _check_shape(key, specs, (rows,))
    return Lora(
        Region(parts[Part.A], (0, rank), (0, columns)),
        Region(parts[Part.B], (0, rows), (0, rank)),
        reading.scaling_of(weight.removesuffix(".weight"), rank),
        {part: Region(key, (0, rows), (0, 1)) for part, key in vectors.items()},
    )


def _experts(weight: str, parts: Parts, shape: tuple[int, ...], specs: Specs, reading: Reading) -> dict[Matrix, Lora]:
    """The factors of each expert: A holds those of one after the other, B theirs in turn, column by column."""
    count, rows, columns = shape
    height = _rank(weight, parts, specs, Part.A)
    rank, rest = divmod(height, count)
    if rest or not rank:
        raise _misshapen(parts[Part.A], specs, f"as many rows for each of {count} experts")
    fitting = _ways(parts, shape, specs)
    if not fitting:
        raise _misshapen(parts[Part.A], specs, f"{columns} or {rows} columns")
    _check_shape(parts[Part.B], specs, (specs[parts[Part.B]].shape[0], height))
    way = fitting[0] if len(fitting) == 1 else reading.orientation
    scaling = reading.scaling_of(weight, rank)
    return {
        Matrix(weight, expert): expert_lora(parts, (rows, columns), (expert, count), scaling, way)
        for expert in range(count)
    }


def _ways(parts: Parts, shape: tuple[int, ...], specs: Specs) -> list[Orientation]:
    """How the factors ``parts`` of a parameter of experts can be meant; both ways, if its matrices are square."""
    if not {Part.A, Part.B} <= parts.keys() or {len(specs[parts[part]].shape) for part in (Part.A, Part.B)} != {2}:
        return []
    found = specs[parts[Part.A]].shape[1], specs[parts[Part.B]].shape[0]
    sides = {Orientation.AS_STORED: (shape[2], shape[1]), Orientation.TRANSPOSED: (shape[1], shape[2])}
    return [way for way, expected in sides.items() if expected == found]


def expert_lora(
    parts: Parts, matrix: tuple[int, int], expert: tuple[int, int], scaling: Scaling, way: Orientation
) -> Lora:
    """Where the factors of one ``expert`` (which, of how many) lie, whose matrix has so many rows and columns."""
    (rows, columns), (number, count), rank = matrix, expert, scaling.rank
    is_turned = way is Orientation.TRANSPOSED
    inside, outside = (rows, columns) if is_turned else (columns, rows)
    first = Region(parts[Part.A], (number * rank, (number + 1) * rank), (0, inside), transposed=is_turned)
    last = number + (rank - 1) * count + 1
    second = Region(parts[Part.B], (0, outside), (number, last), step=count, transposed=is_turned)
    return Lora(second, first, scaling, {}) if is_turned else Lora(first, second, scaling, {})


def _renamed(weight: str, parts: Parts, shape: tuple[int, ...], specs: Specs, reading: Reading) -> Renamed:
    first = Part.EMBEDDING_A if Part.EMBEDDING_A in parts else Part.A
    rank = _rank(weight, parts, specs, first)
    if first is Part.A:
        expected = {Part.A: (rank, *shape[1:]), Part.B: (shape[0], rank, *(1 for _ in shape[2:]))}
        expected |= {Part.BIAS: shape[:1]} if Part.BIAS in parts else {}
    else:
        expected = {Part.EMBEDDING_A: (rank, shape[0]), Part.EMBEDDING_B: (shape[1], rank)}
    for part, sides in expected.items():
        _check_shape(parts[part], specs, sides)
    return Renamed(parts, reading.scaling_of(weight.removesuffix(".weight"), rank))


def _rank(weight: str, parts: Parts, specs: Specs, first: Part) -> int:
    second = Part.EMBEDDING_B if first is Part.EMBEDDING_A else Part.B
    if absent := [part for part in (first, second) if part not in parts]:
        raise ContradictionError(
            f"The adapter has {next(iter(parts.values()))}, but not the {absent[0].value} that belongs to it.",
            "The adapter is incomplete: save or copy it again.",
        )
    shape = specs[parts[first]].shape
    if not prod(shape) or len(shape) not in {2, 4}:
        raise _misshapen(parts[first], specs, f"two dimensions, as the factors of {weight} have")
    return shape[0]


def _check_shape(key: str, specs: Specs, shape: tuple[int, ...]) -> None:
    if specs[key].shape != shape:
        raise _misshapen(key, specs, f"the shape {list(shape)}")


def _not_a_matrix(weight: str, parts: Parts, shape: tuple[int, ...]) -> ContradictionError:
    return ContradictionError(
        f"{next(iter(parts.values()))} would change {weight}, whose shape is {list(shape)}. LoRA has no such factors.",
        "Give the base model that the adapter was trained on, or save the adapter again.",
    )


def _misshapen(key: str, specs: Specs, expected: str) -> ContradictionError:
    return ContradictionError(
        f"{key} has shape {list(specs[key].shape)}, but by its base model it should have {expected}.",
        "Give the base model that the adapter was trained on (to convert it: --base BASE, base=...).",
    )


def _not_of_base(strange: Collection[str], specs: Specs) -> UnknownKeyError:
    count = "All tensors of the adapter are" if len(strange) == len(specs) else f"{len(strange)} tensors are"
    return UnknownKeyError(
        f"{count} of modules that the base model does not have: {first_few(sorted(strange))}.",
        "Give the base model that the adapter was trained on (to convert it: --base BASE, base=...).",
    )
