"""Compare two adapters, of the same or of different formats: their factors, or what these do to the weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import hypot, inf, nan
from pathlib import Path
from typing import Any

import torch

from internvl_bridge.checkpoint.adapters import AdapterOnDisk, base_of, described_base, read_adapter
from internvl_bridge.checkpoint.lora_tensors import TensorOf, look_at_values, made_tensor, stored_tensors, taken
from internvl_bridge.errors import OptionError
from internvl_bridge.mapping.families import Experts
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.lora.factors import Lora
from internvl_bridge.mapping.lora.stored import Adapter, Matrix, Renamed
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.planning.adapter_plan import AdapterTarget, adapter_spelling, plan_adapter, read_packed
from internvl_bridge.reporting.tables import as_html
from internvl_bridge.verification.tensor_difference import TensorDifference
from internvl_bridge.verification.tensors import Comparison

_TILE = 256
"""Rows of a change that are computed at a time."""


@dataclass(frozen=True, slots=True)
class Distance:
    """The L2 distance between two changes, and the norm of the first: in float64."""

    l2: float
    norm: float

    @property
    def relative(self) -> float:
        return self.l2 / self.norm if self.norm else float("inf") if self.l2 else 0.0


@dataclass(frozen=True, slots=True, repr=False)
class AdapterComparison:
    """All that differs between two adapters, by the names that the modules have in the second one.

    The factors of ``equal`` ones agree in every bit, and so does their scaling. ``distances`` are those of the changes
    that other factors make to the weights.
    """

    equal: tuple[str, ...]
    distances: Mapping[str, Distance]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Whether both have the same factors."""
        return not (self.distances or self.missing or self.unexpected)

    @property
    def relative(self) -> float:
        """The relative L2 distance over all changes whose factors differ."""
        distances = self.distances.values()
        return Distance(hypot(*(d.l2 for d in distances)), hypot(*(d.norm for d in distances))).relative

    def as_comparison(self) -> Comparison:
        """The same as of tensors, with what is known of them: distances and norms."""
        differences = (
            TensorDifference(name, 0, distance.l2, distance.norm, nan, 0, 0)
            for name, distance in self.distances.items()
        )
        return Comparison(self.missing, self.unexpected, {}, tuple(differences), self.equal)

    def __repr__(self) -> str:
        return (
            f"AdapterComparison(identical={self.identical}, equal={len(self.equal)}, "
            f"differences={len(self.distances)}, missing={len(self.missing)}, unexpected={len(self.unexpected)})"
        )

    def _repr_html_(self) -> str:
        """The report for notebooks."""
        from internvl_bridge.verification.adapter_comparison_report import (  # noqa: PLC0415 (it knows this)
            adapter_comparison_report,
        )

        return as_html(adapter_comparison_report(self))

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {
            "identical": self.identical,
            "relative_l2": _number(self.relative),
            "equal": list(self.equal),
            "distances": {name: [_number(d.l2), _number(d.relative)] for name, d in self.distances.items()},
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
        }


def verify_adapters(left: str | Path, right: str | Path, *, base: str | Path | None = None) -> AdapterComparison:
    """Compare what two adapters do to their base model, under the names that modules have in the second one.

    Works across formats. Where factors differ, the changes that they make are computed in float64 and compared.

    Args:
        left: Directory of an adapter.
        right: Directory of another one of the same base model, of the same or of the other format.
        base: Directory of the base model, of either format. By default the one that either adapter names.

    Returns:
        The modules with the same factors, the distances of the others, and what only one side changes.

    Raises:
        BridgeError: One of them is not an adapter of that base model.

    Example:
        >>> import internvl_bridge
        >>> internvl_bridge.verify_adapters("my-lora", "my-lora-HF", base="InternVL3_5-8B").identical
        True
    """
    ours, theirs = read_adapter(Path(left)), read_adapter(Path(right))
    place = _base(ours, theirs, None if base is None else Path(base))
    description = described_base(place, theirs)
    there = adapter_spelling(theirs.specs, theirs.config, description, theirs.config.format or Format.HF)
    one_by_one = bool(description.family.split_experts) and there.experts is Experts.SPLIT
    target = AdapterTarget(there.format, there.format, transformers=4 if one_by_one else 5)
    mine, my_tensors = _in_terms(ours, description, target)
    other, other_tensors = _in_terms(theirs, description, target)
    equal: list[str] = []
    distances: dict[str, Distance] = {}
    for name, distance in _distances(mine, my_tensors, other, other_tensors):
        if distance is None:
            equal.append(name)
        else:
            distances[name] = distance
    compared = {*equal, *distances}
    missing = {*_names(mine, my_tensors)} - compared
    unexpected = {*_names(other, other_tensors)} - compared
    before, after = (part.config.values.get("trainable_token_indices") for part in (ours, theirs))
    if mine.tokens and _indices(before) != _indices(after):
        missing.add(f"trainable_token_indices {before}")
        unexpected.add(f"trainable_token_indices {after}")
    return AdapterComparison(tuple(equal), distances, tuple(sorted(missing)), tuple(sorted(unexpected)))


def _indices(stated: object) -> list[str]:
    """The indices of trained tokens, by whatever module they are stated."""
    return sorted(map(str, stated.values())) if isinstance(stated, dict) else [str(stated)]


def _base(ours: AdapterOnDisk, theirs: AdapterOnDisk, stated: Path | None) -> Path:
    try:
        return base_of(ours, stated)
    except OptionError:
        return base_of(theirs, stated)


def _in_terms(adapter: AdapterOnDisk, base: ModelDescription, target: AdapterTarget) -> tuple[Adapter, TensorOf]:
    """``adapter`` in terms of the modules of ``target``, and its tensors."""
    stored = stored_tensors(adapter.checkpoint)
    here = adapter_spelling(adapter.specs, adapter.config, base, adapter.config.format or target.format)
    look = partial(look_at_values, tensor_of=stored, ranks={})
    plan = plan_adapter(adapter.specs, adapter.config, base, replace(target, accepted=here.format), look)
    made = {key: made_tensor(key, plan, stored) for key in plan.packed.keys}
    specs = {key: TensorSpec(str(tensor.dtype), tuple(tensor.shape)) for key, tensor in made.items()}
    return read_packed(plan, specs, adapter.config, base, target), made.__getitem__


def _names(adapter: Adapter, tensor_of: TensorOf) -> Iterator[str]:
    """What ``adapter`` changes; factors whose B is zero change nothing, unless they have vectors."""
    for matrix, lora in adapter.matrices.items():
        if lora.rows or bool(taken(tensor_of(lora.b.key), lora.b).any()):
            yield _name(matrix)
    yield from (*adapter.renamed, *adapter.whole, *(f"{key} (tokens)" for key in adapter.tokens))


def _name(matrix: Matrix) -> str:
    return matrix.key if matrix.expert is None else f"{matrix.key} (expert {matrix.expert})"


def _distances(
    ours: Adapter, mine: TensorOf, theirs: Adapter, other: TensorOf
) -> Iterator[tuple[str, Distance | None]]:
    """The distance between both changes of everything that both change; None where they have the same factors."""
    for matrix in ours.matrices.keys() & theirs.matrices.keys():
        one, two = ours.matrices[matrix], theirs.matrices[matrix]
        yield _name(matrix), None if _has_same_factors(one, mine, two, other) else _between(one, mine, two, other)
    for weight in ours.renamed.keys() & theirs.renamed.keys():
        yield weight, _between_renamed(ours.renamed[weight], mine, theirs.renamed[weight], other)
    pairs: list[tuple[str, str, str]] = []
    pairs += [(key, ours.whole[key][0], theirs.whole[key][0]) for key in ours.whole.keys() & theirs.whole.keys()]
    pairs += [(f"{key} (tokens)", ours.tokens[key], theirs.tokens[key]) for key in ours.tokens.keys() & theirs.tokens]
    for name, left, right in pairs:
        a, b = mine(left), other(right)
        yield name, None if torch.equal(a, b) else Distance(*_norms(a.double() - b.double(), a.double()))


def _between_renamed(one: Renamed, mine: TensorOf, two: Renamed, other: TensorOf) -> Distance | None:
    """Between the factors of embeddings or convolutions, with their scaling; None if they are the same."""
    if one.parts.keys() != two.parts.keys():
        return Distance(inf, 1.0)
    pairs = [(mine(one.parts[part]).double(), other(two.parts[part]).double()) for part in one.parts]
    if one.scaling.value == two.scaling.value and all(torch.equal(a, b) for a, b in pairs):
        return None
    norms = [_norms(one.scaling.value * a - two.scaling.value * b, one.scaling.value * a) for a, b in pairs]
    return Distance(hypot(*(l2 for l2, _ in norms)), hypot(*(norm for _, norm in norms)))


def _has_same_factors(one: Lora, mine: TensorOf, two: Lora, other: TensorOf) -> bool:
    if one.scaling.value != two.scaling.value or one.rows.keys() != two.rows.keys():
        return False
    pairs = [(one.a, two.a), (one.b, two.b), *((one.rows[kind], two.rows[kind]) for kind in one.rows)]
    return all(torch.equal(taken(mine(a.key), a), taken(other(b.key), b)) for a, b in pairs)


def _between(one: Lora, mine: TensorOf, two: Lora, other: TensorOf) -> Distance:
    """Between scaling times B A of both, some rows at a time, and between their vectors."""
    distances, norms = [], []
    for start in range(0, one.b.shape[0], _TILE):
        rows = start, min(start + _TILE, one.b.shape[0])
        left, right = _change(one, mine, rows), _change(two, other, rows)
        l2, norm = _norms(left - right, left)
        distances.append(l2)
        norms.append(norm)
    if one.rows.keys() != two.rows.keys():
        return Distance(inf, hypot(*norms))
    for kind in one.rows:
        first, second = one.rows[kind], two.rows[kind]
        left, right = taken(mine(first.key), first).double(), taken(other(second.key), second).double()
        l2, norm = _norms(left - right, left)
        distances.append(l2)
        norms.append(norm)
    return Distance(hypot(*distances), hypot(*norms))


def _change(lora: Lora, tensor_of: TensorOf, rows: tuple[int, int]) -> torch.Tensor:
    part = lora.b.part(rows=rows)
    b, a = taken(tensor_of(part.key), part).double(), taken(tensor_of(lora.a.key), lora.a).double()
    return lora.scaling.value * (b @ a)


def _norms(*tensors: torch.Tensor) -> tuple[float, float]:
    first, second = (float(torch.linalg.vector_norm(tensor)) for tensor in tensors)
    return first, second


def _number(value: float) -> float | str:
    return value if value - value == 0 else str(value)
