"""Draw any figure."""

from internvl_bridge.pages.drawing.bars import draw_bars
from internvl_bridge.pages.drawing.columns import draw_columns
from internvl_bridge.pages.drawing.heat_map import draw_heat_map
from internvl_bridge.pages.drawing.shapes import Drawing
from internvl_bridge.pages.figures import ColumnChart, Figure, HeatMap


def draw(figure: Figure) -> Drawing:
    """The shapes of ``figure``."""
    if isinstance(figure, HeatMap):
        return draw_heat_map(figure)
    return draw_columns(figure) if isinstance(figure, ColumnChart) else draw_bars(figure)
