"""What a comparison of tensors found, as a report that fits on a screen."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from internvl_bridge.mapping.numberless import numberless
from internvl_bridge.reporting.tables import Facts, Part, Table, bars, number_text
from internvl_bridge.verification.changes import Change, by_component, by_group, by_layer, in_order, most_changed, rank
from internvl_bridge.verification.sort import Sort
from internvl_bridge.verification.tensor_difference import TensorDifference
from internvl_bridge.verification.tensors import Comparison

TOP = 10
"""Rows of what changed most, unless another number is asked for."""
_LISTED = 20
"""Lines about tensors that could not be compared."""
_FRAME = {"model", "language_model", "vision_model", "vision_tower"}
"""What keys begin with, in one spelling or another."""
_SAME_SHAPE = re.compile(r"(\[.*\]) was expected, \w+ \1 found")
"""How tensors are mismatched whose values can be compared."""
_BARS = 40
"""Bars in a row: of more layers, several share one."""


def comparison_report(
    found: Comparison, *, top: int = TOP, sort: Sort = "relative", every: bool = False
) -> Iterator[Part]:
    """The verdict, then where the differences are, with ``top`` rows of what changed most.

    ``every``: with a line for each tensor.
    """
    yield headline(found)
    yield from difference_parts(found, top=top, sort=sort, every=every)


def headline(found: Comparison) -> str:
    """The result in a word and a sentence."""
    return f"{'Identical' if found.identical else 'Different'}: {verdict(found)}"


def verdict(found: Comparison) -> str:
    """The result in a sentence."""
    compared = len(found.equal) + len(found.differences)
    if not compared:
        return (
            f"no tensor could be compared: {len(found.mismatched)} have another dtype or shape, "
            f"{len(found.missing)} are missing and {len(found.unexpected)} unexpected."
        )
    how = "have equal values" if found.ignores_dtype else "are equal bit for bit"
    total = compared + len(found.missing) + len(found.mismatched)
    return (
        f"{len(found.equal)} of {total} tensors {how}; L2 distance {found.l2:g} over all; "
        f"{len(found.missing)} missing, {len(found.unexpected)} unexpected, {len(found.mismatched)} mismatched."
    )


def difference_parts(
    found: Comparison, *, top: int = TOP, sort: Sort = "relative", every: bool = False
) -> Iterator[Part]:
    """Where the differences are: as :func:`comparison_report`, without the verdict."""
    lines = [
        *_folded("missing", found.missing, every=every),
        *_folded("unexpected", found.unexpected, every=every),
        *_folded("mismatched", [f"{key}: {how}" for key, how in found.mismatched.items()], every=every),
    ]
    shown = lines if every else lines[:_LISTED]
    yield from shown
    if len(lines) > len(shown):
        yield f"  and {len(lines) - len(shown)} more; --verbose lists them all"
    if not found.ignores_dtype and any(map(_SAME_SHAPE.search, found.mismatched.values())):
        yield "  --ignore-dtype compares the values of tensors that differ in dtype only."
    if found.differences:
        yield from _diagnosis(found, top, sort)
    if every:
        yield from (f"  L2 {d.l2:.6g}: {d.key}, from element {d.element} on" for d in _sorted(found, sort))
        yield from zero_distances(found)


def zero_distances(found: Comparison) -> Iterator[Part]:
    """A line for each tensor that is equal."""
    yield from (f"  L2 0: {key}" for key in found.equal)


def _folded(what: str, keys: Sequence[str], *, every: bool) -> Iterator[str]:
    """A line for each of ``keys``, or for those that differ in numbers only."""
    for name, count in Counter(keys if every else map(numberless, keys)).items():
        yield f"  {what}: {name}" + (f" ({count} tensors)" if count > 1 else "")


def _diagnosis(found: Comparison, top: int, sort: Sort) -> Iterator[Part]:
    yield ""
    yield change_table("Component", component_rows(found))
    yield from untouched_text(found)
    if layers := {name: _layer_text(values) for name, values in by_layer(found).items() if any(values)}:
        yield ""
        yield "Relative L2 distance, layer by layer:"
        yield Facts(layers)
    yield ""
    if len(found.differences) <= min(top, TOP):
        yield _tensor_table(found, sort)
        return
    groups = by_group(found, sort)
    yield Table(
        ("Changed most", "Differ", "L2", "Relative", "Largest"),
        "lrrrr",
        tuple(_group_row(name, change) for name, change in [*groups.items()][:top]),
    )
    if len(groups) > top:
        yield f"and {len(groups) - top} more groups of tensors; --top {len(groups)} shows them"


def change_table(name: str, changes: Iterable[tuple[str, Change]]) -> Table:
    """A row for each of ``changes``, under the header ``name``."""
    header = (name, "Tensors", "Differ", "L2", "Relative", "Largest")
    return Table(header, "lrrrrr", tuple(_row(*item) for item in changes))


def component_rows(found: Comparison) -> Iterator[tuple[str, Change]]:
    """The changes by component, each followed by those of its groups, whose names are indented."""
    for (component, group), change in by_component(found).items():
        yield f"  {group}" if group else component, change


def untouched_text(found: Comparison) -> Iterator[str]:
    """The components of ``found`` in which nothing differs, in a sentence; nothing if there are none."""
    untouched = [name for (name, group), change in by_component(found).items() if not (group or change.differing)]
    if untouched:
        yield f"{_listed(untouched)} untouched: every {'value' if found.ignores_dtype else 'bit'} is equal."


def _listed(names: Sequence[str]) -> str:
    *first, last = (f"the {name}" for name in names)
    subject = f"{', '.join(first)} and {last}" if first else last
    return f"{subject[0].upper()}{subject[1:]} {'are' if first or last.endswith('s') else 'is'}"


def _row(name: str, change: Change) -> tuple[str, ...]:
    measured = change.differing == 0 or change.differing > change.mismatched
    numbers = (number_text(n) if measured else "-" for n in (change.l2, change.relative, change.largest))
    return name, f"{change.tensors}", f"{change.differing}", *numbers


def _group_row(name: str, change: Change) -> tuple[str, ...]:
    """As :func:`_row`, without what every such key begins and ends with."""
    words = name.removesuffix(".weight").split(".")
    while len(words) > 1 and words[0] in _FRAME:
        del words[0]
    first, _, *others = _row(".".join(words), change)
    return first, *others


def _tensor_table(found: Comparison, sort: Sort) -> Table:
    rows = ((d.key, f"{d.element}", *map(number_text, (d.l2, d.relative, d.largest))) for d in _sorted(found, sort))
    return Table(("Tensor", "From element", "L2", "Relative", "Largest"), "lrrrr", tuple(rows))


def _sorted(found: Comparison, sort: Sort) -> list[TensorDifference]:
    differences = {difference.key: difference for difference in found.differences}
    return [differences[key] for key in in_order(sorted(differences), differences.__getitem__, sort)]


def _layer_text(values: Sequence[float]) -> str:
    """A bar for each layer, or for some of them that follow one another, and the largest value."""
    share = -(-len(values) // _BARS)
    highest = most_changed(values)
    shown = bars([max(values[start : start + share], key=rank) for start in range(0, len(values), share)])
    return f"{shown} up to {number_text(values[highest])}, in layer {highest} of {len(values)}"
