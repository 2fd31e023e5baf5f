"""What a comparison of two adapters found, as a page. Imports torch."""

from internvl_bridge.mapping.components import place_of
from internvl_bridge.pages.comparison_figures import difference_figures
from internvl_bridge.pages.page import Page, Section
from internvl_bridge.pages.tensor_list import Column, TensorList, TensorRow
from internvl_bridge.reporting.tables import Facts, Table
from internvl_bridge.verification.adapter_comparison_report import adapter_verdict
from internvl_bridge.verification.adapters import AdapterComparison
from internvl_bridge.verification.changes import rank

_COLUMNS = (Column("Part of the model", "choice"), Column("Relative", "measure"), Column("L2", "measure"))


def adapter_comparison_page(found: AdapterComparison, left: str, right: str) -> Page:
    """The page of ``found``, the comparison of the adapter ``left`` with ``right``."""
    only = [*((name, "on the left") for name in found.missing), *((name, "on the right") for name in found.unexpected)]
    sections = [Section("In short", (Facts({"Left": left, "Right": right}),))]
    if found.distances:
        sections.append(
            Section("Where the differences are", tuple(difference_figures(found.as_comparison(), "changes")))
        )
    if only:
        sections.append(Section("What only one side changes", (Table(("Module", "Side"), "ll", tuple(only)),)))
    sections.append(Section("All modules that were compared", (_modules(found),)))
    return Page(
        title=f"{right} compared with {left}",
        verdict=adapter_verdict(found),
        state="good" if found.identical else "notice",
        sections=tuple(sections),
    )


def _modules(found: AdapterComparison) -> TensorList:
    """Every module that was compared, from the largest relative distance on."""
    distances = sorted(found.distances.items(), key=lambda item: rank(item[1].relative), reverse=True)
    rows = [TensorRow(name, (place_of(name).component, d.relative, d.l2)) for name, d in distances]
    rows += [TensorRow(name, (place_of(name).component, 0.0, 0.0)) for name in found.equal]
    return TensorList("modules", _COLUMNS, tuple(rows))
