"""The figures of a report as one SVG picture, for papers and issues."""

from collections import Counter
from itertools import accumulate
from textwrap import wrap

from internvl_bridge.pages.drawing.draw import draw
from internvl_bridge.pages.drawing.shapes import LETTER, LINE, WIDTH
from internvl_bridge.pages.page import Made, Page
from internvl_bridge.pages.palette import LIGHT
from internvl_bridge.pages.templating import templates

_TOP, _BETWEEN = 70, 64
"""The room above the first figure, beside the title and the verdict, and between figures: for titles."""
_BOTTOM = 28
_LARGE, _TITLE = 11.0, 26
"""The width of a letter of the title, and the height of a line of it."""


def as_picture(page: Page, made: Made) -> str:
    """The figures of ``page`` under each other, as SVG on a white background.

    Colours are stated in the form that all programs read: Inkscape and rsvg-convert know neither dark mode nor
    variables.
    """
    drawings = [draw(figure) for _, figure in page.figures]
    title, verdict = wrap(page.title, int(WIDTH / _LARGE)), wrap(page.verdict, int(WIDTH / LETTER))
    top = _TOP + _TITLE * len(title) + LINE * len(verdict)
    tops = [*accumulate((drawing.height + _BETWEEN for drawing in drawings), initial=top)]
    return (
        templates()
        .get_template("picture.svg")
        .render(
            page=page,
            made=made,
            lines=[
                *(("title", line, _TITLE * number) for number, line in enumerate(title, 1)),
                *(("quiet", line, _TITLE * len(title) + LINE * number) for number, line in enumerate(verdict, 1)),
            ],
            palette=LIGHT,
            placed=[*zip(_titles(page), drawings, tops[:-1], strict=True)],
            height=tops[-1] - _BETWEEN + _BOTTOM,
        )
    )


def _titles(page: Page) -> list[str]:
    """The titles of the figures; with those of their sections, where two figures have one title."""
    often = Counter(figure.title for _, figure in page.figures)
    return [
        f"{section}: {figure.title}" if often[figure.title] > 1 else figure.title for section, figure in page.figures
    ]
