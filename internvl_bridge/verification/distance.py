"""Euclidean distances between tensors, in float64 and bounded memory. Imports torch."""

from collections.abc import Iterable, Iterator
from math import isfinite, isnan, sqrt

import torch

from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.checkpoint.torch_threads import one_thread_each
from internvl_bridge.verification.distribution import Distribution
from internvl_bridge.verification.tensor_difference import NOT_MEASURED, Distance

_BLOCK = 1 << 18
"""Elements that are held in float64 at a time: those of both sides fit into a core's cache."""
_FRACTION_BITS, _EXPONENTS, _BIAS = 52, 1 << 11, 1023
"""The form of float64: how many bits a fraction has, how many exponents there are, and what is added to them."""
_SMALLEST_NORMAL = 2.0**-1022
"""The smallest positive float64 with an exponent of its own."""


def distance(left: torch.Tensor, right: torch.Tensor) -> Distance:
    """The distance between two tensors of one shape, whatever their dtypes and devices."""
    ours, theirs = _flat(left), _flat(right)
    starts = range(0, ours.numel(), _BLOCK)
    return _measured((ours[start : start + _BLOCK], theirs[start : start + _BLOCK]) for start in starts)


def streamed_distance(
    left: tuple[str, Iterable[memoryview]], right: tuple[str, Iterable[memoryview]], *, distributed: bool = False
) -> Distance:
    """The distance between two tensors that come as windows of bytes, each with its safetensors dtype.

    All windows of a side but the last have the same size, a multiple of a block in any dtype. ``distributed``: with
    the distribution of the differences, which takes about as long once more.
    """
    if left[0] not in TORCH_DTYPES or right[0] not in TORCH_DTYPES:
        return NOT_MEASURED
    with one_thread_each():
        return _measured(zip(_blocks(*left), _blocks(*right), strict=True), distributed=distributed)


def _blocks(dtype: str, windows: Iterable[memoryview]) -> Iterator[torch.Tensor]:
    for window in windows:
        tensor = _flat(torch.frombuffer(window, dtype=TORCH_DTYPES[dtype]))
        yield from (tensor[start : start + _BLOCK] for start in range(0, tensor.numel(), _BLOCK))


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` in one dimension; a complex number counts as two."""
    flat = tensor.detach().reshape(-1)
    return torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat


def _measured(blocks: Iterable[tuple[torch.Tensor, torch.Tensor]], *, distributed: bool = False) -> Distance:
    one = other = torch.empty(0, dtype=torch.float64)
    squares = norm = largest = 0.0
    first, position = None, 0
    exponents = torch.zeros(_EXPONENTS, dtype=torch.int64)
    subnormal = 0
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
        if distributed:
            exponents += _exponents(difference)
            if torch.float64 in {left.dtype, right.dtype}:  # differences of shorter numbers are not that small
                subnormal += int(((difference != 0) & (difference.abs() < _SMALLEST_NORMAL)).sum())
    distribution = _distribution(exponents, subnormal) if distributed else None
    return Distance(sqrt(squares), sqrt(norm), largest, first, distribution)


def _exponents(values: torch.Tensor) -> torch.Tensor:
    """How often each exponent of float64 is there among ``values``, as it is stored (IEEE 754)."""
    stored = (values.view(torch.int64) >> _FRACTION_BITS).to(torch.int16).bitwise_and_(_EXPONENTS - 1)
    return torch.bincount(stored, minlength=_EXPONENTS)


def _distribution(exponents: torch.Tensor, subnormal: int) -> Distribution:
    """The distribution of what has these ``exponents``: that of zeros is the one of ``subnormal`` numbers, too."""
    unchanged = int(exponents[0]) - subnormal
    exponents[0] = subnormal
    not_finite = int(exponents[-1])
    exponents[-1] = 0
    stored = exponents.nonzero().flatten()
    octaves = dict(zip((stored - _BIAS).tolist(), exponents[stored].tolist(), strict=True))
    return Distribution(unchanged, octaves, not_finite)


def _extent(difference: torch.Tensor) -> float:
    lowest, highest = torch.aminmax(difference)
    return max(float(highest), -float(lowest))
