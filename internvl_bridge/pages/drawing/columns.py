"""Draw columns over an axis."""

from math import isfinite

from internvl_bridge.pages.drawing.scales import steps
from internvl_bridge.pages.drawing.shapes import LETTER, LINE, WIDTH, Drawing, Label, Rectangle, Rule, Shape
from internvl_bridge.pages.figures import ColumnChart
from internvl_bridge.reporting.tables import number_text

_LEFT = 130
"""The width of the numbers beside the axis."""
_HEIGHT = 150
_WIDEST = 34
_TOP = 24


def draw_columns(figure: ColumnChart) -> Drawing:
    """A column for each number, from 0 on; one that is not finite is as high as can be."""
    high = max(filter(isfinite, figure.values), default=0.0)
    width = min((WIDTH - _LEFT) / len(figure.values), _WIDEST)
    shapes: list[Shape] = [Label(_LEFT, 12, figure.unit, color="quiet")]
    for step in steps(high):
        y = _y(step, high)
        shapes += [
            Rule(_LEFT, y, width * len(figure.values)),
            Label(_LEFT - 8, y + 4, number_text(step), "end", "quiet"),
        ]
    for place, (name, value, text) in enumerate(zip(figure.names, figure.values, figure.texts, strict=True)):
        top = _y(value, high) if isfinite(value) else _TOP
        top = min(top, _TOP + _HEIGHT - 1) if value else top  # what is there is seen
        box = _LEFT + place * width, top, max(width - 1, 1), _TOP + _HEIGHT - top
        shapes.append(Rectangle(*box, f"s{figure.series}" if isfinite(value) else "bad", f"{name}: {text}"))
    bottom = _TOP + _HEIGHT + 16
    end = 0.0
    for middle, word in figure.ticks.items():
        x, half = _LEFT + (middle + 0.5) * width, LETTER * len(word) / 2
        if x - half >= end:
            shapes.append(Label(x, bottom, word, "middle", "quiet"))
            end = x + half
    shapes.append(Label(_LEFT, bottom + LINE, figure.axis, color="quiet"))
    return Drawing(bottom + LINE + 6, tuple(shapes))


def _y(value: float, high: float) -> float:
    return _TOP + _HEIGHT * (1 - (value / high if high else 0.0))
