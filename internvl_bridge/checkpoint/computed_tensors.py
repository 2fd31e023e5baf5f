"""Tensors that are computed while they are written: what their elements are before, and what is added to their rows.

These are values: :mod:`internvl_bridge.checkpoint.computed_files` computes them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path

from internvl_bridge.checkpoint.opened_weights import LocatedTensor
from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.mapping.lora.changes import Replacement, TensorChange
from internvl_bridge.mapping.lora.factors import Region
from internvl_bridge.storage.byte_range import ByteRange, coalesced
from internvl_bridge.storage.header import DTYPE_BITS
from internvl_bridge.storage.output_shards import TargetTensor


@dataclass(frozen=True, slots=True)
class Piece:
    """The elements ``[start, stop)`` of a tensor before anything is added: their dtype, and where their bytes are."""

    start: int
    stop: int
    dtype: str
    ranges: tuple[ByteRange, ...]


@dataclass(frozen=True, slots=True)
class Factor:
    """A matrix: what ``region`` takes of a stored ``tensor``."""

    tensor: LocatedTensor
    region: Region


@dataclass(frozen=True, slots=True)
class Term:
    """What is added to the rows from ``row`` on, as in :class:`internvl_bridge.mapping.lora.changes.RowChange`."""

    row: int
    scale: float
    b: Factor
    a: Factor | None
    magnitude: Factor | None

    @property
    def rows(self) -> int:
        """How many rows it changes."""
        return self.b.region.shape[0]


@dataclass(frozen=True, slots=True)
class ComputedTensor:
    """A tensor of the output, its dtype and shape, and what it is computed from.

    ``pieces`` cover its elements in their order. ``terms`` are added to its rows.
    """

    key: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]
    terms: tuple[Term, ...] = ()

    @property
    def columns(self) -> int:
        """Elements of a row; where nothing is added, and of a vector that something is added to, each is a row."""
        if not self.terms or len(self.shape) == 1:
            return 1
        return self.shape[-1] if len(self.shape) == 3 else prod(self.shape[1:])

    def rows_of_block(self, elements: int) -> int:
        """Rows that are computed at a time, where there is room for so many ``elements``.

        Raises UnsupportedModelError if a row has more.
        """
        if self.columns > elements:
            raise UnsupportedModelError(
                f"{self.key} has rows of {self.columns} elements, more than any model that is known.",
                "Correct config.json, or save the checkpoint again.",
            )
        return elements // self.columns

    @property
    def is_wide(self) -> bool:
        """Whether float32 has no room for its sums, or for what it is rounded from."""
        return bool(self.terms) or any(piece.dtype == "F64" for piece in self.pieces)

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def length(self) -> int:
        """Bytes."""
        return self.elements * DTYPE_BITS[self.dtype] // 8

    @property
    def is_moved(self) -> bool:
        """Whether its bytes are those of its pieces, so that there is nothing to compute."""
        return not self.terms and all(piece.dtype == self.dtype for piece in self.pieces)

    @property
    def path(self) -> Path:
        """What stands for the file of its bytes, which lies nowhere."""
        return Path("computed") / self.key

    @property
    def target(self) -> TargetTensor:
        """Where its bytes are: in files, or in the one that is computed."""
        if self.is_moved:
            return TargetTensor(
                self.dtype, self.shape, coalesced(part for piece in self.pieces for part in piece.ranges)
            )
        return TargetTensor(self.dtype, self.shape, (ByteRange(self.path, 0, self.length, is_stored=False),))

    @property
    def read_from(self) -> set[Path]:
        """The files that it depends on."""
        factors = [factor for term in self.terms for factor in (term.b, term.a, term.magnitude) if factor is not None]
        ranges = [*(part for piece in self.pieces for part in piece.ranges)]
        ranges += [part for factor in factors for part in factor.tensor.ranges]
        return {part.path for part in ranges}


@dataclass(frozen=True, slots=True)
class Rounding:
    """What rounding did to a tensor: the largest relative error of an element, and how many became zero."""

    error: float
    vanished: int


AdapterTensors = Mapping[str, LocatedTensor]
"""The tensors of an adapter by their keys, and where they lie."""


def computed_tensor(
    key: str,
    dtype: str,
    base: TargetTensor,
    changes: Iterable[tuple[int, TensorChange]] = (),
    adapters: Sequence[AdapterTensors] = (),
) -> ComputedTensor:
    """The tensor ``key`` of an output in ``dtype``: ``base``, with ``changes`` by the ``adapters`` of those numbers."""
    pieces = [Piece(0, prod(base.shape), base.dtype, base.ranges)]
    terms: list[Term] = []
    for number, change in changes:
        tensors = adapters[number]
        for replacement in change.replaced:
            pieces = list(_replaced(pieces, replacement, tensors[replacement.key]))
        for row in change.rows:
            a, magnitude = (None if part is None else _factor(part, tensors) for part in (row.a, row.magnitude))
            terms.append(Term(row.row, row.scale, _factor(row.b, tensors), a, magnitude))
    return ComputedTensor(key, dtype, base.shape, tuple(pieces), tuple(terms))


def _factor(region: Region, tensors: AdapterTensors) -> Factor:
    return Factor(tensors[region.key], region)


def _replaced(pieces: Iterable[Piece], new: Replacement, tensor: LocatedTensor) -> Iterator[Piece]:
    """``pieces`` with the elements that ``new`` replaces, by some of ``tensor``."""
    is_put = False
    for piece in pieces:
        if piece.stop <= new.start or piece.start >= new.stop:
            yield piece
            continue
        if piece.start < new.start:
            yield _part(piece, piece.start, new.start)
        if not is_put:
            whole = Piece(0, prod(tensor.shape), tensor.dtype, tensor.ranges)
            taken = _part(whole, new.first, new.first + new.stop - new.start)
            yield Piece(new.start, new.stop, taken.dtype, taken.ranges)
            is_put = True
        if piece.stop > new.stop:
            yield _part(piece, new.stop, piece.stop)


def _part(piece: Piece, start: int, stop: int) -> Piece:
    """The elements ``[start, stop)`` of ``piece``, counted as it counts."""
    size = DTYPE_BITS[piece.dtype] // 8
    ranges = sliced(piece.ranges, (start - piece.start) * size, (stop - piece.start) * size)
    return Piece(start, stop, piece.dtype, tuple(ranges))


def sliced(ranges: Sequence[ByteRange], start: int, stop: int) -> Iterator[ByteRange]:
    """The bytes ``[start, stop)`` of ``ranges`` one after the other."""
    ends = accumulate(part.length for part in ranges)
    for part, end in zip(ranges, ends, strict=True):
        first, last = max(start - end + part.length, 0), min(stop - end + part.length, part.length)
        if first < last:
            yield ByteRange(part.path, part.offset + first, last - first, part.is_stored)
