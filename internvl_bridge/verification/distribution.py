"""How the differences of single elements are distributed: counted by powers of two."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

LOWEST_OCTAVE = -1023
"""Where all differences below 2^-1022 are counted, the smallest number that float64 holds in full precision."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How many elements differ by how much.

    ``octaves`` counts, for each k, the elements whose absolute difference is at least 2^k and below 2^(k+1). The lowest
    has what is smaller, too.
    ``unchanged`` elements have equal values. ``not_finite`` ones differ by an infinity or a NaN.
    """

    unchanged: int
    octaves: Mapping[int, int]
    not_finite: int

    @property
    def elements(self) -> int:
        """How many elements there are."""
        return self.unchanged + sum(self.octaves.values()) + self.not_finite

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        octaves = {str(octave): count for octave, count in sorted(self.octaves.items())}
        return {"unchanged": self.unchanged, "octaves": octaves, "not_finite": self.not_finite}


def together(distributions: Iterable[Distribution]) -> Distribution:
    """The distribution of the elements of all ``distributions``."""
    unchanged = not_finite = 0
    octaves: Counter[int] = Counter()
    for found in distributions:
        unchanged += found.unchanged
        not_finite += found.not_finite
        octaves.update(found.octaves)
    return Distribution(unchanged, dict(sorted(octaves.items())), not_finite)
