"""What reports are made of: sentences, facts and tables. A terminal and a notebook show the same ones."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, isinf, isnan

from internvl_bridge.reporting.printable import printable


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known, by name."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a ``header``. ``align`` has a letter for each column: "l" for texts, "r" for numbers.

    Spaces at the start of a row's first cell put it under the row before it.
    """

    header: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]


Part = str | Facts | Table
"""A part of a report. A string is one sentence or more; spaces at its start indent it."""


_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_NOTHING = "\u00b7"
PLAIN_BARS = str.maketrans(_NOTHING + _BARS, "._:-=+*#@")
"""What a terminal without Unicode shows in place of the characters of :func:`bars`."""


def bars(values: Sequence[float]) -> str:
    """A bar for each of ``values``, of which the highest is the largest. A dot is nothing, "?" is not a number."""
    largest = max(filter(isfinite, values), default=0.0)
    return "".join(_bar(value, largest) for value in values)


def _bar(value: float, largest: float) -> str:
    if isnan(value):
        return "?"
    if isinf(value):
        return _BARS[-1]
    return _BARS[min(int(value / largest * len(_BARS)), len(_BARS) - 1)] if value else _NOTHING


def number_text(value: float) -> str:
    """A measured number with three digits; "nan" where nothing could be measured."""
    return f"{value:.3g}"


def as_html(parts: Iterable[Part]) -> str:
    """``parts`` as HTML, for notebooks."""
    return "\n".join(_html(part) for part in parts)


def _html(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{_text(part)}</p>"
    if isinstance(part, Facts):
        rows = (f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in part.values.items())
        return f"<table>{''.join(rows)}</table>"
    header = "".join(f"<th>{_text(name)}</th>" for name in part.header)
    body = "".join(f"<tr>{''.join(_cells(row, part.align))}</tr>" for row in part.rows)
    return f"<table><thead><tr>{header}</tr></thead><tbody>{body}</tbody></table>"


def _cells(row: tuple[str, ...], align: str) -> Iterator[str]:
    sides = {"l": "left", "r": "right"}
    yield from (f'<td style="text-align: {sides[a]}">{_text(cell)}</td>' for cell, a in zip(row, align, strict=True))


def _text(text: str) -> str:
    """``text`` for HTML; the spaces at its start stay."""
    from html import escape  # noqa: PLC0415 (only notebooks need it)

    indent = len(text) - len(text.lstrip(" "))
    return "&nbsp;" * indent + escape(printable(text[indent:]))
