"""What an examination of a directory found, as a report."""

from collections.abc import Iterator

from internvl_bridge.diagnosis.findings import Diagnosis
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.reporting.tables import Part

_HEADINGS = {"wrong": "Wrong:", "odd": "Odd, and perhaps meant:"}


def diagnosis_report(found: Diagnosis) -> Iterator[Part]:
    """The verdict, then all findings, the worst first."""
    wrong = sum(finding.severity == "wrong" for finding in found.findings)
    odd = len(found.findings) - wrong
    yield f"{_count(wrong)} wrong with {found.path}" + (f"; {_count(odd).lower()} odd." if odd else ".")
    if found.summary:
        yield f"It is {found.summary}."
    for severity, heading in _HEADINGS.items():
        some = [finding for finding in found.findings if finding.severity == severity]
        if some:
            yield ""
            yield heading
        for number, finding in enumerate(some, 1):
            yield f"  {number}. {finding.text}"
            if finding.remedy:
                yield f"     -> {finding.remedy}"
    if found.command and found.findings:
        yield ""
        place = typed_path(found.path)
        yield f"The output that is spoken of is what this makes: internvl-bridge {found.command} {place} OUTPUT"
    if found.not_checked:
        yield ""
        yield "Not checked:"
        yield from (f"  * {text}" for text in found.not_checked)


def _count(number: int) -> str:
    return {0: "Nothing is", 1: "One thing is"}.get(number, f"{number} things are")
