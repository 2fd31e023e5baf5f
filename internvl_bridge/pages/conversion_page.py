"""What a conversion did, as a page."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from internvl_bridge.convert.computed_report import computed_report, how_computed
from internvl_bridge.convert.conversion_report import DONE, conversion_facts, verified_text
from internvl_bridge.convert.extraction import Extraction
from internvl_bridge.convert.moves import AdapterMoves
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.metadata.sidecar import read_manifest
from internvl_bridge.pages.comparison_figures import difference_figures
from internvl_bridge.pages.comparison_page import comparison_parts
from internvl_bridge.pages.conversion_figures import file_figure, making_figure, moved_figure, parameter_figure
from internvl_bridge.pages.figures import BarChart
from internvl_bridge.pages.page import Page, PagePart, Section, State, joined
from internvl_bridge.pages.tensor_moves import tensor_moves
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Table


def conversion_page(report: ConversionReport) -> Page:
    """The page of ``report``."""
    return Page(
        title=f"{_done(report)} into {report.output}",
        verdict=" ".join(_verdict(report)),
        state=_state(report),
        sections=tuple(_sections(report)),
    )


def extraction_page(found: Extraction) -> Page:
    """The page of an extraction: of both outputs, one after the other."""
    pages = {"base model": conversion_page(found.base), "adapter": conversion_page(found.adapter)}
    return joined(f"{_done(found.base)} into {found.base.output.parent}", pages)


def remarks(title: str, texts: tuple[str, ...]) -> Iterator[Section]:
    """The section of warnings or of notes, if there are any."""
    if texts:
        yield Section(title, texts)


def adapter_figure(moves: AdapterMoves) -> BarChart:
    """The sizes of an adapter's tensors."""
    return parameter_figure({key: TensorSpec(entry.dtype, entry.shape) for key, entry in moves.entries.items()})


def _done(report: ConversionReport) -> str:
    return f"{DONE.get(report.command, 'Converted')} {report.source}"


def _verdict(report: ConversionReport) -> Iterator[str]:
    computed = report.computed
    if computed is not None:
        yield how_computed(computed.tensors, report.tensors, computed.dtype, merges=bool(computed.modules))
    is_verified = report.verification is not None
    yield f"Verified: {verified_text(report)}" if is_verified else "Not verified: --no-verify was given."
    if not report.ok:
        yield "But the reference contradicts it, see below."
    elif not _is_like_reference(report):
        yield "It differs from the reference, see below."


def _is_like_reference(report: ConversionReport) -> bool:
    return report.reference is None or report.reference.identical


def _state(report: ConversionReport) -> State:
    if not report.ok:
        return "bad"
    is_good = report.verification is not None and not report.warnings and _is_like_reference(report)
    return "good" if is_good else "notice"


def _sections(report: ConversionReport) -> Iterator[Section]:
    yield Section("In short", (conversion_facts(report, every=False),))
    yield from remarks("Warnings", report.warnings)
    yield Section("What was moved", tuple(_moved(report)))
    yield Section("Which tensors went where", (tensor_moves(report.moves),))
    if report.computed is not None:
        yield Section("What was computed", tuple(computed_report(report.computed, report.tensors, every=True)))
    if report.verification is not None and (compared := tuple(difference_figures(report.verification))):
        yield Section("Read back and compared", (verified_text(report), *compared))
    if report.fields:
        yield Section("Fields of config.json that differ from the reference's", (_pairs("Field", report.fields),))
    if report.reference is not None:
        yield Section("Against the reference", tuple(comparison_parts(report.reference)))
    yield from remarks("Notes", report.notes)
    left = f"Left behind in the source: {', '.join(report.left_behind)}." if report.left_behind else ""
    yield Section("Files and checksums", (_files(report.output, report.files), left))


def _moved(report: ConversionReport) -> Iterator[PagePart]:
    moves = report.moves
    if isinstance(moves, AdapterMoves):
        yield adapter_figure(moves)
        return
    yield moved_figure(report, moves)
    yield making_figure(moves)
    yield file_figure(moves)
    yield parameter_figure(moves.specs)


def _files(output: Path, names: tuple[str, ...]) -> Table:
    """All files of ``output`` as they are now, each with the checksum that the sidecar states."""
    manifest = read_manifest(output)
    checksums = manifest.files if manifest else {}
    algorithm = manifest.algorithm if manifest else "checksum"
    rows = ((name, _size_text(output / name), checksums.get(name, "")) for name in names)
    return Table(("File", "Size", f"Checksum ({algorithm})"), "lrl", tuple(rows))


def _size_text(path: Path) -> str:
    return human_size(path.stat().st_size) if path.exists() else "gone"


def _pairs(name: str, values: Mapping[str, str]) -> Table:
    return Table((name, "Values"), "ll", tuple(values.items()))
