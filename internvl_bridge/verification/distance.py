"""Euclidean distances between tensors, in float64 and bounded memory. Imports torch."""

from collections.abc import Iterable, Iterator
from math import isfinite, isnan, sqrt

import torch

from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.checkpoint.torch_threads import one_thread_each
from internvl_bridge.verification.tensor_difference import NOT_MEASURED, Distance

_BLOCK = 1 << 18
"""Elements that are held in float64 at a time: those of both sides fit into a core's cache."""


def distance(left: torch.Tensor, right: torch.Tensor) -> Distance:
    """The distance between two tensors of one shape, whatever their dtypes and devices."""
    ours, theirs = _flat(left), _flat(right)
    starts = range(0, ours.numel(), _BLOCK)
    return _measured((ours[start : start + _BLOCK], theirs[start : start + _BLOCK]) for start in starts)


def streamed_distance(left: tuple[str, Iterable[memoryview]], right: tuple[str, Iterable[memoryview]]) -> Distance:
    """The distance between two tensors that come as windows of bytes, each with its safetensors dtype.

    All windows of a side but the last have the same size, a multiple of a block in any dtype.
    """
    if left[0] not in TORCH_DTYPES or right[0] not in TORCH_DTYPES:
        return NOT_MEASURED
    with one_thread_each():
        return _measured(zip(_blocks(*left), _blocks(*right), strict=True))


def _blocks(dtype: str, windows: Iterable[memoryview]) -> Iterator[torch.Tensor]:
    for window in windows:
        tensor = _flat(torch.frombuffer(window, dtype=TORCH_DTYPES[dtype]))
        yield from (tensor[start : start + _BLOCK] for start in range(0, tensor.numel(), _BLOCK))


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` in one dimension; a complex number counts as two."""
    flat = tensor.detach().reshape(-1)
    return torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat


def _measured(blocks: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Distance:
    one = other = torch.empty(0, dtype=torch.float64)
    squares = norm = largest = 0.0
    first, position = None, 0
    for left, right in blocks:
        if left.numel() > one.numel():
            one, other = (torch.empty(left.numel(), dtype=torch.float64) for _ in range(2))
        ours, difference = one[: left.numel()].copy_(left), other[: left.numel()].copy_(right)
        torch.sub(ours, difference, out=difference)
        extent = _extent(difference)
        if not isfinite(extent):  # equal infinities are equal
            difference = torch.where(ours == right.to(ours), 0, difference)
            extent = _extent(difference)
        if extent and first is None:
            first = position + int((difference != 0).to(torch.uint8).argmax())
        position += left.numel()
        squares += float(difference.dot(difference))
        norm += float(ours.dot(ours))
        largest = extent if isnan(extent) else max(largest, extent)  # in this order, NaN stays
    return Distance(sqrt(squares), sqrt(norm), largest, first)


def _extent(difference: torch.Tensor) -> float:
    lowest, highest = torch.aminmax(difference)
    return max(float(highest), -float(lowest))
