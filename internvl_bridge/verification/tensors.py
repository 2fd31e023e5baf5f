"""Compare tensors with a checkpoint: keys, specs, bits, and the L2 distance where bits differ."""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, groupby
from math import prod
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.opened_weights import LocatedTensor
from internvl_bridge.mapping.components import COMPONENTS, place_of
from internvl_bridge.reporting.tables import as_html
from internvl_bridge.storage.byte_range import ByteRange, coalesced
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.header import DTYPE_BITS
from internvl_bridge.storage.output_shards import TargetTensor
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.verification.distribution import Distribution, together
from internvl_bridge.verification.tensor_difference import NOT_MEASURED, Distance, TensorDifference, as_number, norm_of
from internvl_bridge.work.progress import Advance, Report, nothing
from internvl_bridge.work.workers import in_parallel

_START = 1 << 16
"""Bytes of a tensor that are looked at first."""


@dataclass(frozen=True, slots=True, repr=False)
class Comparison:
    """All that differs between the expected tensors and those of a checkpoint.

    ``mismatched`` says, by key, how shape or dtype differ; such tensors are not compared further.
    ``equal`` tensors are identical bit for bit: their distance is exactly zero without arithmetic. If
    ``ignores_dtype``, those of two dtypes have equal values. ``distributions`` are those of the differences of single
    elements, for each component that differs, over its tensors that differ; empty unless they were asked for.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: Mapping[str, str]
    differences: tuple[TensorDifference, ...]
    equal: tuple[str, ...]
    ignores_dtype: bool = False
    distributions: Mapping[str, Distribution] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether both sides have the same tensors with the same dtypes and shapes."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def identical(self) -> bool:
        """Whether both sides agree in every bit; in every value where dtypes are ignored."""
        return self.complete and not self.differences

    @property
    def l2(self) -> float:
        """The Euclidean distance over all tensors that could be compared; NaN if any is."""
        distances = [difference.l2 for difference in self.differences]
        return norm_of(distances)

    def __repr__(self) -> str:
        return (
            f"Comparison(identical={self.identical}, equal={len(self.equal)}, differences={len(self.differences)}, "
            f"missing={len(self.missing)}, unexpected={len(self.unexpected)}, mismatched={len(self.mismatched)}, "
            f"l2={self.l2:g})"
        )

    def _repr_html_(self) -> str:
        """The report for notebooks."""
        from internvl_bridge.verification.comparison_report import comparison_report  # noqa: PLC0415 (it knows this)

        return as_html(comparison_report(self))

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes; distances are strings where JSON has no number (NaN)."""
        from internvl_bridge.verification.changes import changes_as_json  # noqa: PLC0415 (it knows this)

        distances = {**dict.fromkeys(self.equal, 0.0), **{d.key: d.l2 for d in self.differences}}
        return {
            "identical": self.identical,
            "l2": as_number(self.l2),
            "tensors": {key: as_number(distance) for key, distance in sorted(distances.items())},
            "first_differing_element": {d.key: d.element for d in self.differences},
            "differences": {d.key: d.as_json() for d in self.differences},
            "missing": list(self.missing),
            "unexpected": list(self.unexpected),
            "mismatched": dict(self.mismatched),
            "ignores_dtype": self.ignores_dtype,
            "distributions": {name: found.as_json() for name, found in self.distributions.items()},
            **changes_as_json(self),
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Two tensors of one shape, wherever their bytes lie."""

    key: str
    expected: TargetTensor
    actual: LocatedTensor

    @property
    def has_one_dtype(self) -> bool:
        """Whether equal bits mean equal values."""
        return self.expected.dtype == self.actual.dtype


_Measure = Callable[[Pair, FileReader, FileReader, Advance], Distance]
"""Measures the distance between a pair of tensors."""


def compare(
    expected: Iterable[tuple[str, TargetTensor]],
    actual: Mapping[str, LocatedTensor],
    workers: int,
    report: Report,
    *,
    ignore_dtype: bool = False,
    distributed: bool = False,
) -> Comparison:
    """Compare the tensors ``expected`` under their keys, wherever their bytes lie, with those of ``actual``.

    Streams both sides once in bounded memory, file by file of ``actual``, ``workers`` files at a time. Tensors that
    differ are streamed a second time. ``ignore_dtype``: those of different dtypes are compared by their values.
    ``distributed``: the differences of single elements are counted, too.
    """
    missing: list[str] = []
    mismatched: dict[str, str] = {}
    pairs: list[Pair] = []
    for key, ours in expected:
        theirs = actual.get(key)
        if theirs is None:
            missing.append(key)
        elif ours.shape != theirs.shape or (
            ours.dtype != theirs.dtype and not (ignore_dtype and _have_values(ours, theirs))
        ):
            mismatched[key] = f"{ours.dtype} {list(ours.shape)} was expected, {theirs.dtype} {list(theirs.shape)} found"
        else:
            pairs.append(Pair(key, ours, theirs))
    files = [list(group) for _, group in groupby(sorted(pairs, key=_place), key=lambda pair: _place(pair)[0])]
    measure = partial(_in_file, distributed=distributed)
    found = in_parallel(measure, files, workers, report)
    different = {difference.key: difference for in_file, _ in found for difference in in_file}
    return Comparison(
        missing=tuple(sorted(missing)),
        unexpected=tuple(sorted(actual.keys() - mismatched.keys() - {pair.key for pair in pairs})),
        mismatched=mismatched,
        differences=tuple(different[pair.key] for pair in pairs if pair.key in different),
        equal=tuple(pair.key for pair in pairs if pair.key not in different),
        ignores_dtype=ignore_dtype,
        distributions=_by_component(item for _, in_file in found for item in in_file.items()),
    )


def _in_file(
    pairs: Sequence[Pair], advance: Advance, *, distributed: bool
) -> tuple[list[TensorDifference], dict[str, Distribution]]:
    """The tensors of a file that differ, and the distributions of their differences put together by component."""
    found: list[TensorDifference] = []
    by_component: dict[str, Distribution] = {}
    for difference in differences(pairs, advance, distributed=distributed):
        found.append(replace(difference, distribution=None))  # there are many tensors, and few components
        if difference.distribution is not None:
            component = place_of(difference.key).component
            by_component = _by_component([*by_component.items(), (component, difference.distribution)])
    return found, by_component


def _by_component(found: Iterable[tuple[str, Distribution]]) -> dict[str, Distribution]:
    some: dict[str, list[Distribution]] = {}
    for component, distribution in found:
        some.setdefault(component, []).append(distribution)
    return {name: together(some[name]) for name in COMPONENTS if name in some}


def _have_values(*tensors: TargetTensor | LocatedTensor) -> bool:
    """Whether torch can decode ``tensors``: it has no dtypes of less than a byte."""
    return all(DTYPE_BITS[tensor.dtype] >= 8 for tensor in tensors)


def differences(pairs: Sequence[Pair], advance: Advance, *, distributed: bool = False) -> Iterator[TensorDifference]:
    """The tensors among ``pairs`` that differ: of one dtype, in their bits; of two, in their values."""
    measure = partial(_distance, distributed=distributed)
    yield from _different_bits([pair for pair in pairs if pair.has_one_dtype], measure, advance)
    with FileReader() as ours, FileReader() as theirs:
        for pair in pairs:
            if not pair.has_one_dtype:
                found = measure(pair, ours, theirs, advance)
                if found.first is not None:
                    yield _difference(pair, found.first, found)


def _different_bits(pairs: Sequence[Pair], measure: _Measure, advance: Advance) -> Iterator[TensorDifference]:
    """Those of ``pairs`` whose bits differ, in their order.

    Compared all at once in large blocks; from the first difference on, one by one.
    """
    ends = list(accumulate(pair.expected.length for pair in pairs))
    from_start = _reaching(advance)
    with FileReader() as ours, FileReader() as theirs:

        def differs(some: Sequence[Pair], start: int) -> int | None:
            left = coalesced(byte_range for pair in some for byte_range in pair.expected.ranges)
            right = coalesced(byte_range for pair in some for byte_range in pair.actual.ranges)
            return first_difference(ours.windows(left), theirs.windows(right, buffers=2), from_start(start))

        def differs_early(pair: Pair) -> int | None:
            left, right = (ours.windows(_start_of(pair.expected)), theirs.windows(_start_of(pair.actual)))
            return first_difference(left, right, nothing, ahead=False)

        offset = differs(pairs, 0)
        if offset is None:
            return
        for pair, end in [*zip(pairs, ends, strict=True)][bisect_right(ends, offset) :]:
            start = end - pair.expected.length
            if (offset := differs_early(pair)) is None:
                offset = differs([pair], start)
            if offset is not None:
                element = offset * 8 // DTYPE_BITS[pair.expected.dtype]
                yield _difference(pair, element, measure(pair, ours, theirs, from_start(start)))


def _start_of(tensor: TargetTensor | LocatedTensor) -> Iterator[ByteRange]:
    """The ranges of the first bytes of ``tensor``: tensors that were trained differ there already."""
    room = _START
    for byte_range in tensor.ranges:
        if room:
            yield byte_range._replace(length=min(room, byte_range.length))
            room -= min(room, byte_range.length)


def _reaching(advance: Advance) -> Callable[[int], Advance]:
    """Gives, for each place to start from, what counts bytes from there on; none is counted twice."""
    reached = 0

    def from_start(start: int) -> Advance:
        here = start

        def step(done: int) -> None:
            nonlocal here, reached
            here += done
            if here > reached:
                advance(here - reached)
                reached = here

        return step

    return from_start


def _difference(pair: Pair, element: int, found: Distance) -> TensorDifference:
    return TensorDifference(
        key=pair.key,
        element=element,
        l2=found.l2,
        norm=found.norm,
        largest=found.largest,
        elements=prod(pair.expected.shape),
        bytes=pair.expected.length,
        distribution=found.distribution,
    )


def _distance(pair: Pair, ours: FileReader, theirs: FileReader, advance: Advance, *, distributed: bool) -> Distance:
    try:
        from internvl_bridge.verification.distance import streamed_distance  # noqa: PLC0415 (torch takes a second)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        return NOT_MEASURED  # a difference is one without a number, too
    left = _counted(ours.windows(pair.expected.ranges), advance)
    right = theirs.windows(pair.actual.ranges)
    return streamed_distance((pair.expected.dtype, left), (pair.actual.dtype, right), distributed=distributed)


def _counted(windows: Iterable[memoryview], advance: Advance) -> Iterator[memoryview]:
    for window in windows:
        yield window
        advance(len(window))


def _place(pair: Pair) -> tuple[Path, int]:
    ranges = pair.actual.ranges
    return (ranges[0].path, ranges[0].offset) if ranges else (Path(), 0)
