"""Compare tensors with a checkpoint: keys, specs, bits, and the L2 distance where bits differ."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import hypot, isnan, nan

from internvl_bridge.progress import Advance
from internvl_bridge.storage.checkpoint import StoredTensor
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.header import DTYPE_BITS
from internvl_bridge.storage.layout import TargetTensor
from internvl_bridge.storage.reading import FileReader


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor whose bits differ: the first differing element (row-major), and the L2 distance.

    The distance is 0 where bits differ and values do not (-0.0 and 0.0), and NaN where a NaN is.
    """

    key: str
    element: int
    l2: float


@dataclass(frozen=True, slots=True)
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


def compare(
    expected: Iterable[tuple[str, TargetTensor]], actual: Mapping[str, StoredTensor | TargetTensor], advance: Advance
) -> Comparison:
    """Compare the tensors ``expected`` under their keys, wherever their bytes lie, with those of ``actual``.

    Streams both sides once in bounded memory, and a second time the tensors that differ.
    """
    missing: list[str] = []
    mismatched: dict[str, str] = {}
    differences: list[TensorDifference] = []
    equal: list[str] = []
    with FileReader() as readers:
        for key, ours in expected:
            theirs = actual.get(key)
            if theirs is None:
                missing.append(key)
            elif (ours.dtype, ours.shape) != (theirs.dtype, theirs.shape):
                mismatched[key] = (
                    f"{ours.dtype} {list(ours.shape)} was expected, {theirs.dtype} {list(theirs.shape)} found"
                )
            elif (offset := first_difference(ours.pieces, theirs.pieces, readers, advance)) is not None:
                element = offset * 8 // DTYPE_BITS[ours.dtype]
                differences.append(TensorDifference(key, element, _distance(ours, theirs, readers)))
            else:
                equal.append(key)
    found = {*mismatched, *equal, *(difference.key for difference in differences)}
    return Comparison(
        missing=tuple(sorted(missing)),
        unexpected=tuple(sorted(actual.keys() - found)),
        mismatched=mismatched,
        differences=tuple(differences),
        equal=tuple(equal),
    )


def _distance(ours: TargetTensor, theirs: StoredTensor | TargetTensor, readers: FileReader) -> float:
    from internvl_bridge.distance import streamed_distance  # torch takes a second to import  # noqa: PLC0415

    return streamed_distance(ours.dtype, readers.windows(ours.pieces), readers.windows(theirs.pieces))
