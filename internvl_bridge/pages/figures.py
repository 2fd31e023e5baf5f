"""What figures show, as values: the numbers, the words, and no places."""

from collections.abc import Mapping
from dataclasses import dataclass

from internvl_bridge.reporting.tables import Table, number_text


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A number for each of some ``rows`` at each of some numbered columns.

    ``values`` has a sequence for each row; None stands for nothing there. ``column`` is what is numbered, for instance
    "layer". ``unit`` is what the numbers are. ``text`` says what can be seen.
    """

    title: str
    text: str
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    column: str
    unit: str

    @property
    def numbers(self) -> Table:
        """The same for those who read numbers."""
        columns = range(len(self.values[0]))
        return Table(
            (self.column.capitalize(), *self.rows),
            "r" * (1 + len(self.rows)),
            tuple((f"{place}", *(_cell(values[place]) for values in self.values)) for place in columns),
        )


@dataclass(frozen=True, slots=True)
class ColumnChart:
    """A number for each of some things that follow one another, ``names``; ``texts`` say each number with its unit.

    ``ticks`` are words under the axis, by their place: 0 is the middle of the first column. Those without room are not
    drawn. ``axis`` says what follows one another, ``unit`` what the numbers are. ``series`` gives the colour.
    """

    title: str
    text: str
    names: tuple[str, ...]
    values: tuple[float, ...]
    texts: tuple[str, ...]
    ticks: Mapping[float, str]
    axis: str
    unit: str
    series: int

    @property
    def numbers(self) -> Table:
        """The same for those who read numbers."""
        rows = tuple(zip(self.names, self.texts, strict=True))
        return Table((self.axis.capitalize(), self.unit.capitalize()), "lr", rows)


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar: its ``kind`` gives the colour, and ``text`` says how much it is."""

    kind: str
    size: float
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """Some segments in a row, under a ``name``; ``text`` stands at the end."""

    name: str
    segments: tuple[Segment, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Panel:
    """Some bars under each other."""

    title: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class BarChart:
    """Panels of bars side by side, all to one scale. ``kinds`` are those of the segments, each with its colour."""

    title: str
    text: str
    panels: tuple[Panel, ...]
    kinds: Mapping[str, int]

    @property
    def numbers(self) -> Table:
        """The same for those who read numbers."""
        bars = [(panel.title, bar) for panel in self.panels for bar in panel.bars]
        if all(len(bar.segments) < 2 for _, bar in bars):
            return Table(("Name", "Value"), "lr", tuple((bar.name, bar.text) for _, bar in bars))
        rows = ((title, bar.name, bar.text, _parts(bar)) for title, bar in bars)
        return Table(("Side", "Name", "All", "Parts"), "llrl", tuple(rows))


Figure = HeatMap | ColumnChart | BarChart


def _parts(bar: Bar) -> str:
    return ", ".join(f"{segment.kind} {segment.text}" for segment in bar.segments)


def _cell(value: float | None) -> str:
    return "" if value is None else number_text(value)
