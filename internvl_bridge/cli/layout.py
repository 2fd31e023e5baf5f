"""Lay a report out as lines: wrapped at the width of a terminal, or whole where nobody says how wide it is."""

import io
import re
import textwrap
from collections.abc import Iterable, Iterator

import typer

from internvl_bridge.reporting.commands import NO_BREAK
from internvl_bridge.reporting.printable import printable
from internvl_bridge.reporting.tables import Facts, Part, Table

_NARROWEST = 10
"""Columns that names keep, however narrow the terminal is."""
_PIECES, _SMALL_PIECES = re.compile(r"[^. ]*[. ]+|[^. ]+"), re.compile(r"[^._ -]*[._ -]+|[^._ -]+")
"""What a name is broken into, and what a part of it that has no room."""


def lines_of(parts: Iterable[Part], width: int | None, *, color: bool) -> Iterator[str]:
    """The lines of ``parts`` for ``width`` columns; without a width, no sentence is wrapped.

    Words are never broken: a path that is longer than a line is the terminal's business, and can be copied.
    """
    for part in parts:
        match part:
            case str():
                lines = iter(wrapped(printable(part), width, indent=len(part) - len(part.lstrip(" ")) + 2))
            case Facts():
                lines = _fact_lines(part, width, color=color)
            case Table():
                lines = _table_lines(part, width, color=color)
        yield from (line.replace(NO_BREAK, " ") for line in lines)


def wrapped(text: str, width: int | None, *, indent: int) -> list[str]:
    """``text`` in lines, with those after the first indented if they are part of an indented text."""
    if width is None or len(text) <= width:
        return [text]
    after = " " * indent if text.startswith(" ") or indent > 2 else ""
    start = text[: len(text) - len(text.lstrip(" "))]
    return textwrap.wrap(
        text.lstrip(" "),
        width,
        initial_indent=start,
        subsequent_indent=after,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _fact_lines(facts: Facts, width: int | None, *, color: bool) -> Iterator[str]:
    column = max(len(name) for name in facts.values) + 2
    for name, value in facts.values.items():
        label = f"{name}:".ljust(column)
        first, *rest = wrapped(printable(value), None if width is None else max(width - column, 20), indent=0)
        yield (typer.style(label, bold=True) if color else label) + first
        yield from (" " * column + line for line in rest)


def _table_lines(table: Table, width: int | None, *, color: bool) -> Iterator[str]:
    """The rows under their header, as rich lays them out; long names are broken at their dots."""
    from rich.console import Console  # noqa: PLC0415 (only where there is a table: it takes a while to import)
    from rich.table import Table as RichTable  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows = [tuple(map(printable, row)) for row in table.rows]
    widths = [max(map(len, column)) for column in zip(table.header, *rows, strict=True)]
    gap = 2 if width is None or sum(widths) + 2 * len(widths) <= width else 1
    room = None if width is None else max(width - sum(widths[1:]) - gap * (len(widths) - 1), _NARROWEST)
    laid_out = RichTable(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for name, align in zip(table.header, table.align, strict=True):
        laid_out.add_column(name, justify="right" if align == "r" else "left", no_wrap=True, overflow="crop")
    for first, *others in rows:
        laid_out.add_row(Text(_broken(first, room)), *map(Text, others))
    file = io.StringIO()
    console = Console(file=file, width=10_000, color_system="standard" if color else None, force_terminal=color)
    console.print(laid_out)
    yield from (line.rstrip() for line in file.getvalue().splitlines())


def _broken(name: str, room: int | None) -> str:
    """``name`` in lines of ``room`` columns, broken after dots and at spaces."""
    if room is None or len(name) <= room:
        return name
    indent = name[: len(name) - len(name.lstrip(" "))]
    lines = [indent]
    for piece in _pieces(name.strip(), room):
        if lines[-1].strip() and len(lines[-1]) + len(piece.rstrip()) > room:
            lines.append(f"{indent}  ")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _pieces(name: str, room: int) -> Iterator[str]:
    for piece in _PIECES.findall(name):
        yield from [piece] if len(piece.rstrip()) <= room else _SMALL_PIECES.findall(piece)
