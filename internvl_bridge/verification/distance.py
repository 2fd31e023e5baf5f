"""Euclidean distances between tensors, in float64 and bounded memory. Imports torch."""

from collections.abc import Iterable
from math import nan, sqrt

import torch

from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES

_CHUNK = 1 << 22
"""Elements that are held in float64 at a time."""


def squared_distance(left: torch.Tensor, right: torch.Tensor) -> float:
    """Sum of ``|left - right| ** 2`` over two tensors of one shape, in float64; NaN if any element is.

    Works chunk by chunk on the CPU, whatever the dtypes and devices.
    """
    ours, theirs = left.detach().reshape(-1), right.detach().reshape(-1)
    total = 0.0
    for start in range(0, ours.numel(), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        one, other = _wide(ours[chunk]), _wide(theirs[chunk])
        difference = torch.where(one == other, 0, one - other).abs()  # equal infinities are equal
        total += float((difference * difference).sum())
    return total


def streamed_distance(dtype: str, left: Iterable[memoryview], right: Iterable[memoryview]) -> float:
    """The L2 distance between two tensors of one safetensors ``dtype`` that come as windows of bytes.

    NaN for a dtype that torch cannot decode.
    """
    if dtype not in TORCH_DTYPES:
        return nan
    total = 0.0
    for ours, theirs in zip(left, right, strict=True):
        one = torch.frombuffer(bytearray(ours), dtype=TORCH_DTYPES[dtype])
        other = torch.frombuffer(bytearray(theirs), dtype=TORCH_DTYPES[dtype])
        total += squared_distance(one, other)
    return sqrt(total)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    wide = torch.complex128 if tensor.is_complex() else torch.float64
    return tensor.to(device="cpu").to(wide)
