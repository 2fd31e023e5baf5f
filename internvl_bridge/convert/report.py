"""What a conversion did, as values: for programs, for ``--json`` and for the words on the terminal."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.inspection import Inspection
from internvl_bridge.verification.tensors import Comparison


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """The result of :func:`internvl_bridge.to_hf`, :func:`internvl_bridge.to_custom` or :func:`internvl_bridge.repair`.

    ``format`` is the output's, ``found`` what the source turned out to be. ``bytes`` counts tensor data, ``cloned``
    those bytes that the output shares with the source on disk, and ``kept`` names the files that an earlier run had
    finished. ``files``
    were written, ``left_behind`` are files of the source that the output's format has no use for. ``notes`` say what
    was assumed or deserves attention. ``verification`` is None if it was not asked for; a conversion that fails it is
    never published. ``reference`` compares the output with the reference's weights, for information.
    """

    source: Path
    output: Path
    format: str
    family: str
    found: Inspection
    tensors: int
    bytes: int
    cloned: int
    kept: tuple[str, ...]
    files: tuple[str, ...]
    left_behind: tuple[str, ...]
    notes: tuple[str, ...]
    verification: Comparison | None
    reference: Comparison | None

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts: a reference may differ in values, but not in keys or specs."""
        return self.reference is None or self.reference.complete

    def as_json(self) -> dict[str, Any]:
        """The report as values that :func:`json.dumps` takes."""
        return {
            "source": str(self.source),
            "output": str(self.output),
            "format": self.format,
            "family": self.family,
            "found": self.found.as_json(),
            "tensors": self.tensors,
            "bytes": self.bytes,
            "cloned": self.cloned,
            "kept": list(self.kept),
            "files": list(self.files),
            "left_behind": list(self.left_behind),
            "notes": list(self.notes),
            "verification": None if self.verification is None else comparison_as_json(self.verification),
            "reference": None if self.reference is None else comparison_as_json(self.reference),
            "ok": self.ok,
        }


def comparison_as_json(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON values; distances are strings where JSON has no number (NaN)."""
    distances: Mapping[str, float] = {
        **dict.fromkeys(comparison.equal, 0.0),
        **{difference.key: difference.l2 for difference in comparison.differences},
    }
    return {
        "identical": comparison.identical,
        "l2": _number(comparison.l2),
        "tensors": {key: _number(distance) for key, distance in sorted(distances.items())},
        "first_differing_element": {d.key: d.element for d in comparison.differences},
        "missing": list(comparison.missing),
        "unexpected": list(comparison.unexpected),
        "mismatched": dict(comparison.mismatched),
    }


def _number(value: float) -> float | str:
    return value if isfinite(value) else str(value)
