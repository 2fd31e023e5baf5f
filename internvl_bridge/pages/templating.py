"""The templates of pages and pictures, and how values become text in them."""

import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from internvl_bridge.pages.drawing.draw import draw
from internvl_bridge.pages.drawing.shapes import WIDTH, Label, Rectangle, shortened
from internvl_bridge.pages.tensor_list import TensorList
from internvl_bridge.reporting.commands import NO_BREAK
from internvl_bridge.reporting.printable import printable
from internvl_bridge.reporting.tables import Facts, Table


@cache
def templates() -> Environment:
    """The environment that renders them: every text is escaped, and has no control characters."""
    environment = Environment(
        loader=PackageLoader("internvl_bridge.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_text,
        keep_trailing_newline=True,
    )
    environment.filters |= {"breakable": _breakable, "px": _pixels, "json": _json, "short": shortened}
    environment.globals |= {"draw": draw, "width": WIDTH}
    kinds = {"rectangle": Rectangle, "label": Label, "facts": Facts, "table": Table, "tensors": TensorList}
    environment.tests |= {name: _is_a(kind) for name, kind in kinds.items()}
    return environment


def _text(value: object) -> object:
    """``value`` as the templates print it: keys and file names come from strangers."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return printable(value).replace(NO_BREAK, " ")


def _pixels(length: float) -> str:
    """``length`` with a digit after the point, or none where it is a whole number."""
    return f"{length:.1f}".removesuffix(".0")


def _breakable(text: str) -> Markup:
    """A key that can go on in another line after its dots and underscores."""
    return Markup(re.sub(r"([._])", r"\1<wbr>", str(escape(printable(text)))))  # noqa: S704 (escaped)


def _json(value: object) -> Markup:
    """``value`` as JSON in a script element, which no text in it can end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))  # noqa: S704 (escaped)


def _is_a(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)
