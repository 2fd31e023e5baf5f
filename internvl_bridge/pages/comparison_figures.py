"""Figures of how two checkpoints differ: by layer, by component, and element by element."""

from collections.abc import Iterable, Iterator, Mapping
from math import ceil, floor, inf, isfinite, ldexp, log2

from internvl_bridge.mapping.components import COMPONENTS, GROUPS
from internvl_bridge.pages.figures import Bar, BarChart, ColumnChart, Figure, HeatMap, Panel, Segment
from internvl_bridge.reporting.tables import number_text
from internvl_bridge.verification.changes import Change, by_component, by_layer, by_place, most_changed
from internvl_bridge.verification.distribution import LOWEST_OCTAVE, Distribution
from internvl_bridge.verification.tensors import Comparison

_UNIT = "relative L2 distance"
_LARGEST_EXPONENT = 1023
"""Of float64."""


def difference_figures(found: Comparison, what: str = "tensors") -> Iterator[Figure]:
    """All figures of ``found`` that have something to show. Where nothing differs, that is what was compared.

    ``what`` are compared, for instance "tensors".
    """
    for component, layers in by_layer(found).items():
        if any(layers) or not found.differences:
            yield heat_map(found, component, what)
        if any(layers):
            yield layer_figure(component, layers)
    if found.differences:
        yield component_figure(found, what)
    octaves = [octave for distribution in found.distributions.values() for octave in distribution.octaves]
    for component, distribution in found.distributions.items():
        if distribution.octaves:
            yield distribution_figure(component, distribution, range(min(octaves), max(octaves) + 1))


def heat_map(found: Comparison, component: str, what: str) -> HeatMap:
    """The relative distance of each group of tensors of ``component`` in each layer."""
    cells = {
        (place.group, place.layer): change.relative
        for place, change in by_place(found).items()
        if place.component == component and place.layer is not None
    }
    groups = [group for group in GROUPS if any(name == group for name, _ in cells)]
    layers = range(1 + max(layer for _, layer in cells))
    return HeatMap(
        title=f"The {component}, layer by layer and group by group",
        text=f"Each cell is the L2 distance between both sides, in units of the L2 norm of the left side's {what} that "
        f"differ.",
        rows=tuple(groups),
        values=tuple(tuple(cells.get((group, layer)) for layer in layers) for group in groups),
        column="layer",
        unit=_UNIT,
    )


def layer_figure(component: str, values: list[float]) -> ColumnChart:
    """The relative distance of each layer of ``component``."""
    most = most_changed(values)
    return ColumnChart(
        title=f"The {component}, layer by layer",
        text=f"The largest relative distance is {number_text(values[most])}, in layer {most} (counted from 0).",
        names=tuple(f"layer {layer}" for layer in range(len(values))),
        values=tuple(values),
        texts=tuple(map(number_text, values)),
        ticks={layer: str(layer) for layer in range(len(values))},
        axis="layer",
        unit=_UNIT,
        series=COMPONENTS.index(component),
    )


def component_figure(found: Comparison, what: str) -> BarChart:
    """The relative distance of each component and group."""
    changes = by_component(found)
    divided = {component for component, group in changes if group}
    shown = {name: change for name, change in changes.items() if bool(name[1]) == (name[0] in divided)}
    bars = tuple(_component_bar(component, group, change, what) for (component, group), change in shown.items())
    return BarChart(
        title="By component",
        text=f"The relative distance over all {what} of a group that differ.",
        panels=(Panel("", bars),),
        kinds=component_colors(name for name, _ in shown),
    )


def distribution_figure(component: str, found: Distribution, octaves: range) -> ColumnChart:
    """How the elements of ``component`` are distributed over the sizes of their differences, which are ``octaves``."""
    total = found.elements
    counts = [found.octaves.get(octave, 0) for octave in octaves]
    odd = f" For {found.not_finite:,} elements, the difference is infinite or NaN." if found.not_finite else ""
    return ColumnChart(
        title=f"The {component}, element by element",
        text=f"{found.unchanged:,} of {total:,} elements ({_share(found.unchanged, total)}) of the tensors that differ "
        f"are unchanged. The columns show by how much the others differ.{odd}",
        names=tuple(map(_octave_text, octaves)),
        values=tuple(100 * count / total for count in counts),
        texts=tuple(f"{count:,} ({count / total:.2%})" for count in counts),
        ticks=_decades(octaves),
        axis="absolute difference of two elements (logarithmic)",
        unit="% of elements",
        series=COMPONENTS.index(component),
    )


def _component_bar(component: str, group: str, change: Change, what: str) -> Bar:
    distance = change.relative
    size = distance if isfinite(distance) else 0.0
    others = f", {change.mismatched:,} could not be compared" if change.mismatched else ""
    some = f"{number_text(distance)}, {change.differing:,} of {change.tensors:,} {what} differ{others}"
    text = some if change.differing else f"no difference ({change.tensors:,} {what})"
    return Bar(
        f"{component}: {group}" if group else component, (Segment(component, size, number_text(distance)),), text
    )


def component_colors(names: Iterable[str]) -> dict[str, int]:
    """The components ``names``, each with its colour: the same in all figures."""
    some = {*names}
    return {component: series for series, component in enumerate(COMPONENTS) if component in some}


def _share(part: int, whole: int) -> str:
    """``part`` as a percentage; never 100 % where something else is there."""
    share = f"{part / whole:.1%}"
    return "more than 99.9%" if share == "100.0%" and part < whole else share


def _octave_text(octave: int) -> str:
    end = number_text(_power(octave + 1))
    return f"below {end}" if octave == LOWEST_OCTAVE else f"{number_text(_power(octave))} to {end}"


def _power(octave: int) -> float:
    return ldexp(1.0, octave) if octave <= _LARGEST_EXPONENT else inf


def _decades(octaves: range) -> Mapping[float, str]:
    """Where powers of ten are under columns of ``octaves``; where the columns begin, if none is there."""
    first, last = octaves[0] / log2(10), (octaves[-1] + 1) / log2(10)
    decades = {
        decade * log2(10) - octaves[0] - 0.5: f"{10.0**decade:g}" for decade in range(ceil(first), floor(last) + 1)
    }
    return decades or {-0.5: number_text(_power(octaves[0]))}
