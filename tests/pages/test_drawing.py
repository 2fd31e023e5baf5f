"""Figures become shapes: as large, as dark and as many as their numbers."""

from math import inf, nan

import pytest

from internvl_bridge.pages.drawing.draw import draw
from internvl_bridge.pages.drawing.scales import SHADES, every, shade_scale, steps
from internvl_bridge.pages.drawing.shapes import LETTER, WIDTH, Drawing, Label, Rectangle, shortened
from internvl_bridge.pages.figures import Bar, BarChart, ColumnChart, Figure, HeatMap, Panel, Segment

_AFTER = {"start": 1.0, "middle": 0.5, "end": 0.0}
"""The part of a label that is right of its place."""


def heat_map(*rows: tuple[float | None, ...]) -> HeatMap:
    return HeatMap("T", "t", tuple(f"row {n}" for n in range(len(rows))), rows, "layer", "distance")


def columns(*values: float) -> ColumnChart:
    names = tuple(f"layer {n}" for n in range(len(values)))
    return ColumnChart("T", "t", names, values, tuple(map(str, values)), {0: "first"}, "layer", "distance", 2)


def bars(*panels: tuple[tuple[tuple[str, float], ...], ...]) -> BarChart:
    made = tuple(
        Panel("p", tuple(Bar("bar", tuple(Segment(k, s, f"{s}") for k, s in bar), "all") for bar in panel))
        for panel in panels
    )
    return BarChart("T", "t", made, {"a": 0, "b": 1})


def titled(drawing: Drawing) -> list[Rectangle]:
    """The rectangles that stand for a number."""
    return [shape for shape in drawing.shapes if isinstance(shape, Rectangle) and shape.title]


def words(drawing: Drawing) -> list[str]:
    return [shape.text for shape in drawing.shapes if isinstance(shape, Label)]


def test_a_heat_map_is_darker_where_numbers_are_larger():
    found = titled(draw(heat_map((0.0, 1.0, 2.0), (9.0, None, 9.0))))
    assert [(cell.fill, cell.title) for cell in found] == [
        ("none", "layer 0, row 0: 0"),
        ("h0", "layer 1, row 0: 1"),
        ("h1", "layer 2, row 0: 2"),
        ("h8", "layer 0, row 1: 9"),
        ("h8", "layer 2, row 1: 9"),
    ]
    assert found[1].x > found[0].x
    assert found[3].y > found[0].y


def test_shades_follow_the_logarithm_where_numbers_differ_by_much():
    scale = shade_scale([1e-6, 1e-4, 1e-2])
    assert scale is not None
    assert [scale.shade(value) for value in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)] == [0, 2, 4, 6, 8]
    drawing = draw(heat_map((1e-6, 1e-2)))
    assert "0.01 (distance, on a logarithmic scale)" in words(drawing)
    assert "1e-06" in words(drawing)


@pytest.mark.parametrize("values", [(0.0, 0.0), (None, None), (nan, 0.0), (inf, nan)])
def test_a_heat_map_of_nothing_to_measure(values: tuple[float | None, ...]):
    drawing = draw(heat_map(values))
    assert {cell.fill for cell in titled(drawing)} <= {"none", "bad"}
    assert ("infinite, or not measured" in words(drawing)) is any(
        value is not None and value - value != 0 for value in values
    )


def test_the_largest_number_alone_is_the_darkest():
    scale = shade_scale([5.0])
    assert scale is not None
    assert scale.shade(5.0) == SHADES - 1


def test_columns_are_as_high_as_their_numbers():
    found = titled(draw(columns(1.0, 2.0, 0.0, inf, nan)))
    assert [round(cell.height / found[0].height, 6) for cell in found[:3]] == [1.0, 2.0, 0.0]
    assert [cell.fill for cell in found] == ["s2", "s2", "s2", "bad", "bad"]
    assert {cell.y + cell.height for cell in found} == {found[0].y + found[0].height}


def test_columns_of_nothing():
    assert [cell.height for cell in titled(draw(columns(0.0, 0.0)))] == [0.0, 0.0]


def test_bars_have_one_scale():
    one, two, three = titled(draw(bars(((("a", 1.0), ("b", 3.0)),), ((("a", 2.0),),))))
    assert (two.width / one.width, three.width / one.width) == (pytest.approx(3), pytest.approx(2))
    assert two.x == pytest.approx(one.x + one.width)
    assert three.x >= WIDTH / 2
    assert [cell.fill for cell in (one, two, three)] == ["s0", "s1", "s0"]


def test_bars_of_nothing():
    assert titled(draw(bars(((("a", 0.0),),))))[0].width == 0
    assert titled(draw(BarChart("T", "t", (Panel("", ()),), {}))) == []


@pytest.mark.parametrize(
    "figure",
    [
        heat_map((1.0,) * 2000),
        columns(*(float(n) for n in range(500))),
        bars(((("a", 5.0),),) * 3, (((("b", 1e18)),),)),
        BarChart("T", "t", (Panel("p", (Bar("name " * 99, (Segment("a", 1.0, "1"),), "text " * 99),)),), {"a": 0}),
    ],
    ids=["layers", "columns", "bars", "long words"],
)
def test_everything_is_on_the_paper(figure: Figure):
    drawing = draw(figure)
    for shape in drawing.shapes:
        right = shape.x + (LETTER * len(shape.text) * _AFTER[shape.anchor] if isinstance(shape, Label) else shape.width)
        assert 0 <= shape.x <= right <= WIDTH + 1
        assert shape.y <= drawing.height
    long = [word for word in words(drawing) if len(word) > 100]
    assert long == []


def test_ticks_without_room_are_left_out():
    names = tuple(f"{n}" for n in range(90))
    ticks = {float(n): f"{n}" for n in range(90)}
    drawing = draw(ColumnChart("T", "t", names, (1.0,) * 90, names, ticks, "layer", "distance", 0))
    shown = [shape for shape in drawing.shapes if isinstance(shape, Label) and shape.anchor == "middle"]
    assert shown[0].text == "0"
    assert 10 < len(shown) < 90
    columns_of = {cell.title.split(":")[0]: cell for cell in titled(drawing)}
    for label in shown:
        cell = columns_of[label.text]
        assert cell.x <= label.x <= cell.x + cell.width + 1


@pytest.mark.parametrize("values", [(5e-324, 1e-200), (1e-200, 1e200), (1e308, 1.7e308)])
def test_extreme_numbers_are_drawn(values: tuple[float, ...]):
    assert [cell.fill for cell in titled(draw(heat_map(values)))][1] == "h8"
    assert titled(draw(columns(*values)))[1].height > 100


def test_axes_have_round_numbers():
    assert steps(0.07) == pytest.approx([0, 0.02, 0.04, 0.06])
    assert steps(100.0) == pytest.approx([0, 20, 40, 60, 80, 100])
    assert steps(0.0) == [0.0]
    assert [*every(94, 8.5)][:3] == [0, 5, 10]
    assert [*every(3, 34)] == [0, 1, 2]


def test_a_long_name_loses_its_middle():
    assert shortened("model-00001-of-00002", 80) == "model\N{HORIZONTAL ELLIPSIS}0002"
    assert shortened("model", 80) == "model"
