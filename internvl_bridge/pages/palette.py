"""The colours of pages and pictures, on a light and on a dark background."""

from collections.abc import Mapping

from internvl_bridge.pages.drawing.scales import SHADES

Palette = Mapping[str, str]
"""Colours by name: of background and text, of series ("s0" and so on) and of shades ("h0" and so on)."""


def _palette(names: Mapping[str, str], series: str, shades: tuple[str, str]) -> Palette:
    return {
        **names,
        **{f"s{place}": color for place, color in enumerate(series.split())},
        **{f"h{place}": _between(*shades, place / (SHADES - 1)) for place in range(SHADES)},
    }


def _between(first: str, last: str, part: float) -> str:
    """A colour on the way from one to another, each as #rrggbb."""
    ends = [[int(color[place : place + 2], 16) for place in (1, 3, 5)] for color in (first, last)]
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(*ends, strict=True))


LIGHT = _palette(
    {"background": "#ffffff", "raised": "#f3f5f8", "text": "#1c2430", "strong": "#1c2430", "quiet": "#566273"}
    | {"line": "#d5dbe3", "link": "#0b5cad", "none": "#eceff3", "bad": "#b42318", "good": "#0d6b4d"}
    | {"notice": "#8a4b00"},
    "#1d6fb8 #c8690a #128064 #9a4a94 #78838f #b5487a",
    ("#cfe1f4", "#08306b"),
)
DARK = _palette(
    {"background": "#11161d", "raised": "#1b222c", "text": "#e4eaf1", "strong": "#ffffff", "quiet": "#9fadbd"}
    | {"line": "#36424f", "link": "#7cb9f2", "none": "#222a34", "bad": "#ff8a80", "good": "#6fd3ab"}
    | {"notice": "#f2b267"},
    "#5aa9ec #f0994a #4cc3a0 #d08fca #9aa7b5 #f08fb8",
    ("#24435f", "#d3e9ff"),
)
"""The same names. Larger numbers are lighter on the dark background: they stand out on both."""
