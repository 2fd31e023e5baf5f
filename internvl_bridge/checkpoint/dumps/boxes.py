"""Whole tensors out of boxes: which runs of which boxes fill a tensor, in row-major order. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from internvl_bridge.mapping.plan import Run


@dataclass(frozen=True, slots=True)
class Box:
    """The elements ``[offset, offset + size)`` of a tensor, in every dimension."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.sizes)


def fits(box: Box, shape: tuple[int, ...]) -> bool:
    """Whether the box has as many dimensions as a tensor of this ``shape`` and lies within it."""
    return len(box.offsets) == len(box.sizes) == len(shape) and all(
        offset >= 0 and size >= 0 and offset + size <= whole
        for offset, size, whole in zip(box.offsets, box.sizes, shape, strict=True)
    )


def runs_in(box: Box, shape: tuple[int, ...]) -> int:
    """The number of runs of a tensor of ``shape`` that make up the box, which must fit."""
    return prod(box.sizes[: _first_inner(box, shape)])


def tiled(shape: tuple[int, ...], boxes: Mapping[str, Box], malformed: Callable[[str], Exception]) -> tuple[Run, ...]:
    """The runs that fill a tensor of ``shape`` from its ``boxes``, each of which is stored in row-major order.

    The boxes must fit and have elements. Raises whatever ``malformed(reason)`` returns unless they tile the
    tensor: no hole, no overlap.
    """
    placed = sorted(
        (start, run) for key, box in boxes.items() for start, run in zip(*_runs(key, box, shape), strict=True)
    )
    position = 0
    for start, run in placed:
        if start != position:
            missing = start > position
            raise malformed(f"its element {min(start, position)} is stored {'nowhere' if missing else 'twice'}")
        position += run.stop - run.start
    if position != prod(shape):
        raise malformed(f"its element {position} is stored nowhere")
    return tuple(run for _, run in placed)


def _runs(key: str, box: Box, shape: tuple[int, ...]) -> tuple[list[int], list[Run]]:
    """Where in the tensor the runs of the box start, in order, and the runs."""
    inner = _first_inner(box, shape)
    strides = [prod(shape[dimension + 1 :]) for dimension in range(len(shape))]
    starts = [sum(offset * stride for offset, stride in zip(box.offsets, strides, strict=True))]
    for size, stride in zip(box.sizes[:inner], strides[:inner], strict=True):
        starts = [start + index * stride for start in starts for index in range(size)]
    length = prod(box.sizes[inner:])
    bounds = list(range(0, box.elements + 1, length))  # each number is one object in two runs
    return starts, [Run(key, first, last) for first, last in pairwise(bounds)]


def _first_inner(box: Box, shape: tuple[int, ...]) -> int:
    """The dimension from which on the box is one run: those behind it are spanned whole."""
    dimension = max(len(shape) - 1, 0)
    while dimension and box.sizes[dimension] == shape[dimension]:
        dimension -= 1
    return dimension
