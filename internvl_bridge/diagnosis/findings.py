"""What an examination of a directory found."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from internvl_bridge.reporting.tables import as_html

Severity = Literal["wrong", "odd"]
"""Something that is wrong must be mended, or known, before the directory is used; something odd may be meant."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found: what it is, and what to do about it, None where the text says that."""

    severity: Severity
    text: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Diagnosis:
    """All that was found in the directory ``path``, the worst first.

    ``kind``: "checkpoint" or "adapter". ``summary`` is what it turned out to be, None if that cannot be said.
    ``command`` is the one that was tried, in full: what findings say about an output is about what that would make.
    ``not_checked`` says what these checks cannot see, and how to see it.
    """

    path: str
    kind: str
    summary: str | None
    command: str | None
    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong. Something may be odd."""
        return not any(finding.severity == "wrong" for finding in self.findings)

    def __repr__(self) -> str:
        return f"Diagnosis(path={self.path!r}, healthy={self.healthy}, findings={len(self.findings)})"

    def _repr_html_(self) -> str:
        """The report for notebooks."""
        from internvl_bridge.diagnosis.diagnosis_report import diagnosis_report  # noqa: PLC0415 (it knows this)

        return as_html(diagnosis_report(self))

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {
            "path": self.path,
            "kind": self.kind,
            "healthy": self.healthy,
            "summary": self.summary,
            "command": self.command,
            "findings": [asdict(finding) for finding in self.findings],
            "not_checked": list(self.not_checked),
        }


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """``findings``, each once, what is wrong before what is odd."""
    once: dict[str, Finding] = {}
    for finding in sorted(findings, key=lambda finding: finding.severity != "wrong"):
        once.setdefault(finding.text, finding)
    return tuple(once.values())
