"""What a conversion did, as a report."""

from collections.abc import Iterator

from internvl_bridge.checkpoint.adapter_directory import ADAPTER_FILE
from internvl_bridge.checkpoint.inspection import Inspection
from internvl_bridge.checkpoint.inspection_report import engines_text, inspection_summary
from internvl_bridge.convert.computed_report import computed_report
from internvl_bridge.convert.link_notes import links_text
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.errors import first_few
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Facts, Part
from internvl_bridge.verification.comparison_report import difference_parts, verdict, zero_distances

DONE = {"repair": "Repaired", "merge": "Merged", "cast": "Cast", "extract": "Extracted"}
"""What a command has done, where it has not converted."""


def conversion_report(report: ConversionReport, *, every: bool = False, warned: bool = False) -> Iterator[Part]:
    """What ``report`` says; ``every``: with all files, and a line for each tensor.

    ``warned``: whoever reads it has seen the warnings.
    """
    done = DONE.get(report.command, "Converted")
    yield f"{done} {report.source} into {report.output} ({report.format} format, {report.family})."
    yield conversion_facts(report, every=every)
    if report.computed is not None:
        yield from computed_report(report.computed, report.tensors, every=every)
    if every and report.verification is not None:
        yield from zero_distances(report.verification)
    if report.reference is not None:
        yield f"Against the reference: {verdict(report.reference)}"
        yield from difference_parts(report.reference, every=every)
    if not warned:
        yield from (f"Warning: {warning}" for warning in report.warnings)
    elif report.warnings:
        yield f"{len(report.warnings)} warning(s), see above; they are in {SIDECAR_FILE}, too."
    yield from (f"Note: {note}" for note in report.notes)


def conversion_facts(report: ConversionReport, *, every: bool) -> Facts:
    """What was found and written, and how long it took; ``every``: with the names of all files."""
    is_checkpoint = isinstance(report.found, Inspection) and ADAPTER_FILE not in report.files
    weights = [name for name in report.files if name.endswith(".safetensors")]
    others = [name for name in report.files if name not in weights]
    written = report.bytes - (report.linked.bytes if report.linked else 0)
    speed = f", {human_size(int(written / report.seconds))}/s" if report.seconds else ""
    cloned = f"{human_size(report.cloned)} share their blocks on disk with the source; the rest was copied"
    values = {
        "Found": _summary(report),
        "Written": f"{report.tensors} tensors, {human_size(report.bytes)} in {len(weights)} file(s) of weights; "
        f"{len(others)} other file(s)",
        "Other files": ", ".join(others) if every else "",
        "Took": f"{report.seconds:.1f} s{speed}",
        "Cloned": cloned if report.cloned else "",
        "Linked": _linked(report, len(weights)),
        "Deleted": _consumed(report),
        "Resumed": _kept(report) if report.kept else "",
        "Served by": f"{engines_text(report.engines)} (docs/serving.md)" if is_checkpoint else "",
        "Left behind": ", ".join(report.left_behind) if every else first_few(report.left_behind),
        "Verified": verified_text(report),
    }
    return Facts({name: value for name, value in values.items() if value})


def _kept(report: ConversionReport) -> str:
    if report.by_workers:
        return f"{len(report.kept)} file(s) that were finished before were read once more, compared and kept"
    return f"{len(report.kept)} file(s) that an earlier run had finished were compared with the source and kept"


def _linked(report: ConversionReport, of: int) -> str:
    linked = report.linked
    if linked is None or not linked.files:
        return ""
    unread = f" {len(linked.unread)} of them have no checksum: linked, not read." if linked.unread else ""
    return links_text(len(linked.files), of, linked.bytes, report.bytes, linked.kind) + unread


def _consumed(report: ConversionReport) -> str:
    if not report.consumed:
        return ""
    return f"{len(report.consumed)} file(s) of weights in {report.source}: the output has their tensors, read back"


def _summary(report: ConversionReport) -> str:
    found = report.found
    if isinstance(found, Inspection):
        return inspection_summary(found)
    from internvl_bridge.checkpoint.adapter_report import adapter_summary  # noqa: PLC0415 (few sources are)

    return adapter_summary(found)


def verified_text(report: ConversionReport) -> str:
    """With what the output was compared, and what that showed."""
    if report.verification is None:
        return "no (--no-verify)"
    linked = "; linked files are the source's own" if report.linked and report.linked.files else ""
    return (
        f"read back and compared with {_compared(report)}; every bit is equal{linked}. L2 distance 0 for each of the "
        f"{len(report.verification.equal)} tensors, {report.verification.l2:g} over all."
    )


def _compared(report: ConversionReport) -> str:
    if report.streamed:
        return "what came from the hub, by checksum"
    if report.by_workers:
        return "what the workers had read of the source, by checksum"
    if report.computed is not None:
        return "the source, and with what was computed once more"
    return "the source" if isinstance(report.found, Inspection) else "tensors that were made once more"
