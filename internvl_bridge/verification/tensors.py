"""Compare tensors with a checkpoint: keys, specs, bits, and the L2 distance where bits differ."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from math import hypot, isfinite, isnan, nan
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.opened_weights import LocatedTensor
from internvl_bridge.storage.byte_range import coalesced
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.header import DTYPE_BITS
from internvl_bridge.storage.output_shards import TargetTensor
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.work.progress import Advance, Report
from internvl_bridge.work.workers import in_parallel


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor whose bits differ: the first differing element (row-major), and the L2 distance.

    The distance is 0 where bits differ and values do not (-0.0 and 0.0). It is NaN where a NaN is, or where torch,
    which measures it, is not installed.
    """

    key: str
    element: int
    l2: float


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """All that differs between the expected tensors and those of a checkpoint.

    ``mismatched`` says, by key, how shape or dtype differ; such tensors are not compared further.
    ``equal`` tensors are identical bit for bit: their distance is exactly zero without arithmetic.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, str]
    differences: tuple[TensorDifference, ...]
    equal: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether both sides have the same tensors with the same dtypes and shapes."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def identical(self) -> bool:
        """Whether both sides agree in every bit."""
        return self.complete and not self.differences

    @property
    def l2(self) -> float:
        """The Euclidean distance over all tensors that could be compared; NaN if any is."""
        distances = [difference.l2 for difference in self.differences]
        return nan if any(isnan(distance) for distance in distances) else hypot(*distances)

    def __repr__(self) -> str:
        return (
            f"Comparison(identical={self.identical}, equal={len(self.equal)}, differences={len(self.differences)}, "
            f"missing={len(self.missing)}, unexpected={len(self.unexpected)}, mismatched={len(self.mismatched)}, "
            f"l2={self.l2:g})"
        )

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes; distances are strings where JSON has no number (NaN)."""
        distances = {**dict.fromkeys(self.equal, 0.0), **{d.key: d.l2 for d in self.differences}}
        return {
            "identical": self.identical,
            "l2": _number(self.l2),
            "tensors": {key: _number(distance) for key, distance in sorted(distances.items())},
            "first_differing_element": {d.key: d.element for d in self.differences},
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "mismatched": dict(self.mismatched),
        }


def _number(value: float) -> float | str:
    return value if isfinite(value) else str(value)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors of one dtype and shape, wherever their bytes lie."""

    key: str
    expected: TargetTensor
    actual: LocatedTensor


def compare(
    expected: Iterable[tuple[str, TargetTensor]], actual: Mapping[str, LocatedTensor], workers: int, report: Report
) -> Comparison:
    """Compare the tensors ``expected`` under their keys, wherever their bytes lie, with those of ``actual``.

    Streams both sides once in bounded memory, file by file of ``actual``, ``workers`` files at a time. Tensors that
    differ are streamed a second time.
    """
    missing: list[str] = []
    mismatched: dict[str, str] = {}
    pairs: list[Pair] = []
    for key, ours in expected:
        theirs = actual.get(key)
        if theirs is None:
            missing.append(key)
        elif (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
            mismatched[key] = f"{ours.dtype} {list(ours.shape)} was expected, {theirs.dtype} {list(theirs.shape)} found"
        else:
            pairs.append(Pair(key, ours, theirs))
    files = [list(group) for _, group in groupby(sorted(pairs, key=_place), key=lambda pair: _place(pair)[0])]
    found = in_parallel(lambda file, step: list(differences(file, step)), files, workers, report)
    different = {difference.key: difference for in_file in found for difference in in_file}
    return Comparison(
        missing=tuple(sorted(missing)),
        unexpected=tuple(sorted(actual.keys() - mismatched.keys() - {pair.key for pair in pairs})),
        mismatched=mismatched,
        differences=tuple(different[pair.key] for pair in pairs if pair.key in different),
        equal=tuple(pair.key for pair in pairs if pair.key not in different),
    )


def differences(pairs: Sequence[Pair], advance: Advance) -> Iterator[TensorDifference]:
    """The tensors among ``pairs`` whose bits differ, in their order.

    Compared all at once in large blocks; from the first difference on, one by one.
    """
    with FileReader() as ours, FileReader() as theirs:

        def differs(some: Sequence[Pair]) -> int | None:
            left = coalesced(byte_range for pair in some for byte_range in pair.expected.ranges)
            right = coalesced(byte_range for pair in some for byte_range in pair.actual.ranges)
            return first_difference(ours.windows(left), theirs.windows(right, buffers=2), advance)

        offset = differs(pairs)
        if offset is None:
            return
        ends = list(accumulate(pair.expected.length for pair in pairs))
        for pair in pairs[bisect_right(ends, offset) :]:
            if (offset := differs([pair])) is not None:
                yield describe_difference(pair, offset)


def describe_difference(pair: Pair, offset: int) -> TensorDifference:
    """The difference of a pair whose bytes differ from ``offset`` on."""
    return TensorDifference(pair.key, offset * 8 // DTYPE_BITS[pair.expected.dtype], _distance(pair))


def _distance(pair: Pair) -> float:
    try:
        from internvl_bridge.verification.distance import streamed_distance  # noqa: PLC0415 (torch takes a second)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return nan  # a difference is one without a number, too
    with FileReader() as readers:
        left, right = (readers.windows(side.ranges) for side in (pair.expected, pair.actual))
        return streamed_distance(pair.expected.dtype, left, right)


def _place(pair: Pair) -> tuple[Path, int]:
    ranges = pair.actual.ranges
    return (ranges[0].path, ranges[0].offset) if ranges else (Path(), 0)
