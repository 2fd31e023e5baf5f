"""What a comparison of two checkpoints found, as a page: the picture of a fine-tune."""

from collections.abc import Iterator

from internvl_bridge.mapping.components import place_of
from internvl_bridge.pages.comparison_figures import difference_figures
from internvl_bridge.pages.page import Page, PagePart, Section
from internvl_bridge.pages.tensor_list import Column, TensorList, TensorRow
from internvl_bridge.reporting.tables import Facts, Table, number_text
from internvl_bridge.verification.changes import Change, by_component, by_group, by_layer, most_changed, rank
from internvl_bridge.verification.comparison_report import (
    change_table,
    component_rows,
    headline,
    untouched_text,
    verdict,
)
from internvl_bridge.verification.tensors import Comparison

_COLUMNS = (
    Column("Part of the model", "choice"),
    Column("Relative", "measure"),
    Column("L2", "measure"),
    Column("Largest", "measure"),
    Column("From element", "number"),
    Column("Elements", "number"),
)
_LISTED = 200
"""Names of tensors that could not be compared, which are listed."""


def comparison_page(found: Comparison, left: str, right: str) -> Page:
    """The page of ``found``, the comparison of what is called ``left`` with ``right``."""
    return Page(
        title=f"{right} compared with {left}",
        verdict=headline(found),
        state="good" if found.identical else "notice" if found.complete else "bad",
        sections=tuple(comparison_sections(found, {"Left": left, "Right": right})),
    )


def comparison_sections(found: Comparison, names: dict[str, str]) -> Iterator[Section]:
    """What ``found`` says, of the sides that are called ``names``."""
    yield Section("In short", (Facts(names), *_in_short(found)))
    if figures := tuple(difference_figures(found)):
        yield Section("Where the differences are" if found.differences else "What was compared", figures)
    if found.differences:
        yield Section("What changed most", tuple(_changed_most(found)))
    if lines := tuple(_not_compared(found)):
        yield Section("What could not be compared", lines)
    yield Section("All tensors that were compared", (_tensors(found),))
    if found.differences:
        yield Section("What the numbers mean", (_MEANINGS,))


def comparison_parts(found: Comparison) -> Iterator[PagePart]:
    """The same as a part of another page, without every tensor."""
    yield verdict(found)
    yield from _in_short(found)
    yield from difference_figures(found)
    if found.differences:
        yield from _changed_most(found)
        yield _MEANINGS
    yield from _not_compared(found)


_MEANINGS = Facts(
    {
        "L2 distance": "The square root of the sum of all squared differences of elements, computed in float64.",
        "Relative": "The L2 distance in units of the L2 norm of the left side. Over several tensors, the norm is that "
        "of those tensors that differ. 0.01 means: the change is a hundredth of the weights, in L2 norm.",
        "Largest": "The largest absolute difference of two elements.",
        "From element": "The first element that differs, counted in row-major order from 0.",
        "Unchanged elements": "Those whose values are equal. In a tensor that is untouched, every bit is.",
    }
)


def _in_short(found: Comparison) -> Iterator[PagePart]:
    if found.identical:
        yield f"Every {'value' if found.ignores_dtype else 'bit'} is equal."
        return
    changes = {name: change for (name, group), change in by_component(found).items() if not group}
    yield from untouched_text(found)
    layers = by_layer(found)
    yield from (_in_words(name, change, layers.get(name, [])) for name, change in changes.items() if change.differing)


def _in_words(component: str, change: Change, layers: list[float]) -> str:
    text = f"The {component}: {change.differing:,} of {change.tensors:,} tensors differ"
    if change.differing == change.mismatched:
        return f"{text}; none of them could be measured."
    text += f", by a relative distance of {number_text(change.relative)}"
    text += f" ({change.mismatched:,} of them could not be measured)" if change.mismatched else ""
    if any(layers):
        most = most_changed(layers)
        text += f". Of its {len(layers)} layers, number {most} (from 0) changed most: {number_text(layers[most])}"
    return f"{text}."


def _changed_most(found: Comparison) -> Iterator[PagePart]:
    yield "By component and group of tensors:"
    yield change_table("Component", component_rows(found))
    yield "By name, from the largest relative distance on. A star stands for the numbers of layers and experts:"
    yield change_table("Name", by_group(found).items())


def _not_compared(found: Comparison) -> Iterator[PagePart]:
    rows = [
        *(("mismatched", key, how) for key, how in found.mismatched.items()),
        *(("missing on the right", key, "") for key in found.missing),
        *(("only on the right", key, "") for key in found.unexpected),
    ]
    if rows:
        yield Table(("What", "Tensor", "How"), "lll", tuple(rows[:_LISTED]))
    if len(rows) > _LISTED:
        yield f"and {len(rows) - _LISTED:,} more"


def _tensors(found: Comparison) -> TensorList:
    """Every tensor that was compared, from the largest relative distance on."""
    differences = sorted(found.differences, key=lambda difference: rank(difference.relative), reverse=True)
    rows = [
        TensorRow(d.key, (place_of(d.key).text, d.relative, d.l2, d.largest, d.element, d.elements))
        for d in differences
    ]
    rows += [TensorRow(key, (place_of(key).text, 0.0, 0.0, 0.0, "", "")) for key in found.equal]
    return TensorList("tensors", _COLUMNS, tuple(rows))
