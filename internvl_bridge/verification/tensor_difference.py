"""How a tensor differs from another one: where, and by how much."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import hypot, inf, isfinite, isnan, nan
from typing import Any

from internvl_bridge.verification.distribution import Distribution


@dataclass(frozen=True, slots=True)
class Distance:
    """How far apart two tensors are, in float64.

    ``l2`` is their Euclidean distance and ``norm`` the Euclidean norm of the first. ``largest`` is the largest
    difference of two elements. They are NaN where an element is. ``first`` is the first element (row-major) whose
    values differ, None if all are equal. ``distribution`` is that of all differences, None if it was not asked for.
    """

    l2: float
    norm: float
    largest: float
    first: int | None
    distribution: Distribution | None = None


NOT_MEASURED = Distance(nan, nan, nan, 0)
"""Between tensors that nobody can decode."""


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor whose bits differ, or whose values do where dtypes are ignored.

    ``element`` is the first that differs (row-major). ``l2`` is the L2 distance, ``norm`` the L2 norm of the left side,
    and ``largest`` the largest difference of two elements. They are 0 where bits differ and values do not (-0.0 and
    0.0). They are NaN where a NaN is, or where torch, which measures them, is not installed. ``elements`` and ``bytes``
    are the size of the tensor on the left side. ``distribution`` is as in :class:`Distance`.
    """

    key: str
    element: int
    l2: float
    norm: float
    largest: float
    elements: int
    bytes: int
    distribution: Distribution | None = None

    @property
    def relative(self) -> float:
        """The L2 distance in units of the left side's norm."""
        return relative(self.l2, self.norm)

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {
            "l2": as_number(self.l2),
            "relative_l2": as_number(self.relative),
            "norm": as_number(self.norm),
            "largest": as_number(self.largest),
            "elements": self.elements,
            "bytes": self.bytes,
        }


def relative(l2: float, norm: float) -> float:
    """A distance in units of a norm; infinite for a distance from nothing."""
    return l2 / norm if norm else inf if l2 else 0.0


def norm_of(parts: Iterable[float]) -> float:
    """The Euclidean norm over all ``parts``; NaN if one is, also beside an infinity."""
    values = [*parts]
    return nan if any(map(isnan, values)) else hypot(*values)


def as_number(value: float) -> float | str:
    """``value`` as JSON has it: a string where JSON has no number."""
    return value if isfinite(value) else str(value)
