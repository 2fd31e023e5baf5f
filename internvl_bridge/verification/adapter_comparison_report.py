"""What a comparison of two adapters found, as a report."""

from collections.abc import Iterator

from internvl_bridge.reporting.tables import Part, Table, number_text
from internvl_bridge.verification.adapters import AdapterComparison
from internvl_bridge.verification.changes import rank
from internvl_bridge.verification.comparison_report import TOP
from internvl_bridge.verification.sort import Sort

_LISTED = 20


def adapter_comparison_report(
    found: AdapterComparison, top: int = TOP, sort: Sort = "relative", *, every: bool = False
) -> Iterator[Part]:
    """What ``found`` says, with ``top`` rows of what differs most by ``sort``, or ``every`` one."""
    yield adapter_verdict(found)
    lines = [*(f"  missing: {name}" for name in found.missing), *(f"  unexpected: {name}" for name in found.unexpected)]
    number = "l2" if sort == "l2" else "relative"
    distances = sorted(found.distances.items())
    if sort != "name":
        distances.sort(key=lambda item: rank(getattr(item[1], number)), reverse=True)
    shown = (lines, distances) if every else (lines[:_LISTED], distances[:top])
    yield from shown[0]
    if distances:
        rows = ((name, number_text(d.l2), number_text(d.relative)) for name, d in shown[1])
        yield Table(("Module", "L2", "Relative"), "lrr", tuple(rows))
    if hidden := len(lines) + len(distances) - len(shown[0]) - len(shown[1]):
        yield f"  and {hidden} more; --verbose lists them all"


def adapter_verdict(found: AdapterComparison) -> str:
    """The result in a sentence."""
    verdict = "Identical" if found.identical else "Different"
    distance = f"; relative L2 distance of their changes {found.relative:g}" if found.distances else ""
    return (
        f"{verdict}: {len(found.equal)} modules have the same factors, {len(found.distances)} others{distance}; "
        f"{len(found.missing)} missing, {len(found.unexpected)} unexpected."
    )
