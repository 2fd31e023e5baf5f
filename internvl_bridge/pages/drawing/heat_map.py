"""Draw a heat map."""

from collections.abc import Iterator
from math import isfinite

from internvl_bridge.pages.drawing.scales import SHADES, ShadeScale, every, shade_scale
from internvl_bridge.pages.drawing.shapes import LINE, WIDTH, Drawing, Label, Rectangle, Shape, legend
from internvl_bridge.pages.figures import HeatMap
from internvl_bridge.reporting.tables import number_text

_NAMES = 130
"""The width of the names of rows."""
_HEIGHT = 24
_WIDEST = 34


def draw_heat_map(figure: HeatMap) -> Drawing:
    """A cell for each number, shaded; the numbers of columns under them, and the shades under these."""
    scale = shade_scale(value for row in figure.values for value in row)
    count = len(figure.values[0])
    width = min((WIDTH - _NAMES) / count, _WIDEST)
    shapes: list[Shape] = []
    for number, (name, values) in enumerate(zip(figure.rows, figure.values, strict=True)):
        y = number * _HEIGHT
        shapes.append(Label(_NAMES - 8, y + 16, name, "end"))
        for place, value in enumerate(values):
            if value is not None:
                title = f"{figure.column} {place}, {name}: {number_text(value)}"
                box = _NAMES + place * width, y, max(width - 1, 1), _HEIGHT - 1
                shapes.append(Rectangle(*box, _fill(value, scale), title))
    y = len(figure.rows) * _HEIGHT + 15
    shapes.append(Label(_NAMES - 8, y, figure.column, "end", "quiet"))
    shapes += [Label(_NAMES + (place + 0.5) * width, y, str(place), "middle", "quiet") for place in every(count, width)]
    y += LINE + 10
    if scale is not None:
        shapes += _key(figure, scale, y)
        y += LINE
    others = {"none": "no difference", "bad": "infinite, or not measured"}
    used = {shape.fill for shape in shapes if isinstance(shape, Rectangle)}
    shapes += legend([(fill, word) for fill, word in others.items() if fill in used], _NAMES, y)
    return Drawing(y + 6, tuple(shapes))


def _fill(value: float, scale: ShadeScale | None) -> str:
    if not isfinite(value):
        return "bad"
    return f"h{scale.shade(value)}" if value and scale else "none"


def _key(figure: HeatMap, scale: ShadeScale, y: float) -> Iterator[Shape]:
    """What the shades stand for."""
    low = number_text(scale.low) if scale.logarithmic else "0"
    unit = f"{figure.unit}, on a logarithmic scale" if scale.logarithmic else figure.unit
    yield Label(_NAMES - 8, y, low, "end", "quiet")
    yield from (Rectangle(_NAMES + 22 * shade, y - 11, 22, 12, f"h{shade}") for shade in range(SHADES))
    yield Label(_NAMES + 22 * SHADES + 8, y, f"{number_text(scale.high)} ({unit})", color="quiet")
