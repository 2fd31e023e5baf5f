"""What drawings are made of. Lengths are in pixels."""

from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 960
"""The width of every drawing."""
LINE = 20
"""The height of a line of text."""
LETTER = 8.0
"""The width of a letter: fonts differ, and this is that of a wide one."""


@dataclass(frozen=True, slots=True)
class Rectangle:
    """A filled rectangle; ``fill`` names a colour, and ``title`` is shown to those who point at it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """A text. ``x`` is where it starts, or its "middle" or "end" as ``anchor`` says; ``y`` is its base line."""

    x: float
    y: float
    text: str
    anchor: str = "start"
    color: str = "text"
    title: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A thin line from one side to the other."""

    x: float
    y: float
    width: float


Shape = Rectangle | Label | Rule


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes, and the ``height`` that they need."""

    height: float
    shapes: tuple[Shape, ...]


def shortened(text: str, room: float) -> str:
    """``text``, without its middle if it is wider than ``room``."""
    most = max(int(room / LETTER), 4)
    if len(text) <= most:
        return text
    half = (most - 1) // 2
    return f"{text[: most - 1 - half]}\N{HORIZONTAL ELLIPSIS}{text[len(text) - half :]}"


def legend(items: Iterable[tuple[str, str]], x: float, y: float) -> list[Shape]:
    """A swatch and a word for each of ``items``: a colour, and what it stands for. They begin at ``x``, ``y``."""
    shapes: list[Shape] = []
    for fill, word in items:
        shapes += [Rectangle(x, y - 11, 12, 12, fill), Label(x + 17, y, word, color="quiet")]
        x += 17 + LETTER * len(word) + 18
    return shapes
