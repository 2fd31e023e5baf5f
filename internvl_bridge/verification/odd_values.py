"""Find tensors that hold what no training makes: values that are not finite, and matrices of zeros. Imports torch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from pathlib import Path

import torch

from internvl_bridge.checkpoint.opened_weights import LocatedTensor
from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.checkpoint.torch_threads import one_thread_each
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.work.progress import Advance, Report
from internvl_bridge.work.workers import in_parallel

_WEIGHTS = {"BF16", "F16", "F32", "F64"}


@dataclass(frozen=True, slots=True)
class OddValues:
    """Keys of tensors: ``not_finite`` have a NaN or an infinity, ``zero`` are matrices whose values are all zero."""

    not_finite: tuple[str, ...]
    zero: tuple[str, ...]


def odd_values(tensors: Iterable[tuple[str, LocatedTensor]], workers: int, report: Report) -> OddValues:
    """The tensors among ``tensors`` whose values are odd, of dtypes that weights have.

    Reads each once in bounded memory, file by file, ``workers`` files at a time.
    """
    named = sorted(tensors, key=lambda item: _place(item[1]))
    files = [list(group) for _, group in groupby(named, key=lambda item: _place(item[1])[0])]
    found = [kind for kinds in in_parallel(_odd, files, workers, report) for kind in kinds]
    return OddValues(
        not_finite=tuple(sorted(key for key, is_finite in found if not is_finite)),
        zero=tuple(sorted(key for key, is_finite in found if is_finite)),
    )


def _odd(tensors: Sequence[tuple[str, LocatedTensor]], advance: Advance) -> list[tuple[str, bool]]:
    """The keys of odd tensors, and whether their values are finite: then they are zero."""
    odd: list[tuple[str, bool]] = []
    with FileReader() as reader, one_thread_each():
        for key, tensor in tensors:
            if tensor.dtype not in _WEIGHTS:
                continue
            extents: list[float] = []
            for window in reader.windows(tensor.ranges):
                extents += _extents(window, tensor.dtype)
                advance(len(window))
            if not all(map(isfinite, extents)):
                odd.append((key, False))
            elif len(tensor.shape) > 1 and extents and not any(extents):
                odd.append((key, True))
    return odd


def _extents(window: memoryview, dtype: str) -> Iterator[float]:
    """The smallest and the largest value; NaN if any is."""
    yield from map(float, torch.aminmax(torch.frombuffer(window, dtype=TORCH_DTYPES[dtype])))


def _place(tensor: LocatedTensor) -> tuple[Path, int]:
    return (tensor.ranges[0].path, tensor.ranges[0].offset) if tensor.ranges else (Path(), 0)
