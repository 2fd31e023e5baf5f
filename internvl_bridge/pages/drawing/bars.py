"""Draw panels of bars."""

from collections.abc import Iterator, Mapping

from internvl_bridge.pages.drawing.shapes import (
    LETTER,
    LINE,
    WIDTH,
    Drawing,
    Label,
    Rectangle,
    Shape,
    legend,
    shortened,
)
from internvl_bridge.pages.figures import Bar, BarChart

_GAP = 24
"""Between panels."""
_BAR = 20
"""The height of a bar with the space under it."""
_SPACE = 6
"""Between a bar and its text."""


def draw_bars(figure: BarChart) -> Drawing:
    """The panels side by side, and the colours under them."""
    all_bars = [bar for panel in figure.panels for bar in panel.bars]
    largest = max((_size(bar) for bar in all_bars), default=0.0)
    room = (WIDTH - _GAP * (len(figure.panels) - 1)) / len(figure.panels)
    names = min(LETTER * max((len(bar.name) for bar in all_bars), default=0) + 8, room * 0.42)
    texts = min(LETTER * max((len(bar.text) for bar in all_bars), default=0) + 8, room * 0.36)
    shapes: list[Shape] = []
    bottom = 0.0
    for number, panel in enumerate(figure.panels):
        x = number * (room + _GAP)
        top = LINE + 2 if panel.title else 0
        if panel.title:
            shapes.append(Label(x, 14, panel.title, color="strong"))
        for row, bar in enumerate(panel.bars):
            y = top + row * _BAR
            length = room - names - texts
            shapes.append(Label(x, y + 13, shortened(bar.name, names), title=bar.name))
            shapes += _segments(bar, x + names, y, length / (largest or 1.0), figure.kinds)
            end = x + names + length * _size(bar) / (largest or 1.0) + _SPACE
            shapes.append(Label(end, y + 13, shortened(bar.text, texts - _SPACE), color="quiet", title=bar.text))
        bottom = max(bottom, top + len(panel.bars) * _BAR)
    if len(figure.kinds) > 1:
        bottom += LINE
        shapes += legend(((f"s{series}", kind) for kind, series in figure.kinds.items()), 0, bottom)
    return Drawing(bottom + 8, tuple(shapes))


def _segments(bar: Bar, x: float, y: float, scale: float, kinds: Mapping[str, int]) -> Iterator[Shape]:
    for segment in bar.segments:
        width = segment.size * scale
        title = f"{bar.name}: {segment.kind} {segment.text}"
        yield Rectangle(x, y + 2, width, _BAR - 5, f"s{kinds[segment.kind]}", title)
        x += width


def _size(bar: Bar) -> float:
    return sum(segment.size for segment in bar.segments)
