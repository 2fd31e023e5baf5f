"""How numbers become lengths and shades."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10

SHADES = 9
"""Shades of a heat map, from the smallest number to the largest."""
_WIDE = 30.0
"""From this ratio of the largest to the smallest number on, shades follow the logarithm."""


_SMALLEST = 1e-300
"""What an axis has numbers for."""


@dataclass(frozen=True, slots=True)
class ShadeScale:
    """Shades for positive numbers from ``low`` to ``high``; from 0 on, unless it is ``logarithmic``."""

    low: float
    high: float
    logarithmic: bool

    def shade(self, value: float) -> int:
        """The shade of ``value``, from 0 to 8."""
        part = value / self.high
        if self.logarithmic:
            part = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return min(max(ceil(part * SHADES) - 1, 0), SHADES - 1)


def shade_scale(values: Iterable[float | None]) -> ShadeScale | None:
    """The scale for those of ``values`` that are finite and not 0; None if there are none."""
    some = [value for value in values if value and isfinite(value)]
    if not some:
        return None
    low, high = min(some), max(some)
    return ShadeScale(low, high, logarithmic=high > _WIDE * low)


def steps(high: float) -> list[float]:
    """Round numbers from 0 up to ``high``, some three to six."""
    if high < _SMALLEST:
        return [0.0]
    unit = 10.0 ** floor(log10(high))
    step = next(step for part in (0.2, 0.5, 1.0, 2.0) if high / (step := part * unit) <= 5.0)
    return [number * step for number in range(floor(high / step * (1 + 1e-9)) + 1)]


def every(count: int, room: float) -> range:
    """Which of ``count`` numbered columns have a number, if each has ``room`` pixels."""
    choices = (part * 10**power for power in range(12) for part in (1, 2, 5))
    return range(0, count, next(step for step in choices if step * room >= 28))
