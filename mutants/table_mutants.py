"""Mutants of the tables, which are data: every row dropped, every segment misspelt, every group rearranged."""

import re
from collections.abc import Iterator
from pathlib import Path

from trials import Mutant

TABLES = Path("internvl_bridge/mapping/tables.py")
_ROW = re.compile(r"^    (?:rename|keep|fuse|stack)\(.*\),$|^    f?\"[^\"]+\",$", re.MULTILINE)
_TEXT = re.compile(r'"([a-z_{}0-9A-Z]+(?:\.[a-z_{}0-9A-Z]+)+)"')
_EXCHANGES = (
    ('for role in "qkv"', 'for role in "qvk"'),
    ("Thirds()", "GroupedQKV(1, 1, 1)"),
    ('("gate", "up", "down")', '("up", "gate", "down")'),
    ("(gate, up), count", "(up, gate), count"),
    ("dims.heads, dims.kv_heads", "dims.kv_heads, dims.heads"),
)


def table_mutants(text: str) -> list[Mutant]:
    """Every mutant of ``text``, that of the tables."""
    return [
        Mutant(f"{TABLES} {number} {what}", TABLES, changed) for number, (what, changed) in enumerate(_changed(text))
    ]


def _changed(text: str) -> Iterator[tuple[str, str]]:
    for row in _ROW.finditer(text):
        yield f"dropped {row[0].strip()}", text[: row.start()] + text[row.end() :]
    for key in _TEXT.finditer(text):
        segments = key[1].split(".")
        for number, segment in enumerate(segments):
            if segment.startswith("{"):
                continue
            spelt = ".".join([*segments[:number], f"{segment}x", *segments[number + 1 :]])
            yield f"{key[1]} -> {spelt}", text[: key.start(1)] + spelt + text[key.end(1) :]
    for old, new in _EXCHANGES:
        for place in re.finditer(re.escape(old), text):
            yield f"{old} -> {new}", text[: place.start()] + new + text[place.end() :]
