"""What an examination of a directory found, as a report."""

from collections.abc import Iterator

from internvl_bridge.diagnosis.findings import Diagnosis
from internvl_bridge.reporting.commands import unbroken
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
                is_command = finding.remedy.startswith("internvl-bridge ")
                yield f"     -> {unbroken(finding.remedy) if is_command else finding.remedy}"
    if found.command and any("output" in finding.text for finding in found.findings):
        yield ""
        yield f"The output that is spoken of is what this makes: {unbroken(found.command)}"
    if found.not_checked:
        yield ""
        yield "Not checked:"
        yield from (f"  * {_with_command(text)}" for text in found.not_checked)


def _with_command(text: str) -> str:
    """``text``, whose command at its end stays in one line."""
    before, program, rest = text.rpartition("internvl-bridge ")
    return before + unbroken(program + rest)


def _count(number: int) -> str:
    return {0: "Nothing is", 1: "One thing is"}.get(number, f"{number} things are")
