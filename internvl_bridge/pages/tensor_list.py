"""A long list of tensors to search and sort, packed: those whose keys differ in numbers only share their texts."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from internvl_bridge.mapping.numberless import numberless
from internvl_bridge.reporting.printable import printable
from internvl_bridge.verification.tensor_difference import as_number

Kind = Literal["text", "choice", "size", "number", "measure"]
"""How a column is read: a text, one of few words to choose from, bytes, a whole number, or a measured one.

An empty text stands for a number that there is not.
"""


Group = tuple["Value", ...]
"""A key without its numbers, and the values that all tensors with such a key share."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column beside the keys. ``is_shared``: the tensors of a group have one value."""

    name: str
    kind: Kind
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """A size in bytes, and how it is written."""

    bytes: int
    text: str


Value = str | float | Size


@dataclass(frozen=True, slots=True)
class TensorRow:
    """A tensor, and its value in every column.

    In the texts of shared columns, the stars in a word stand for the numbers of the key, in their order.
    """

    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class TensorList:
    """The ``rows`` under ``columns``; ``what`` they are, for instance "tensors"."""

    what: str
    columns: tuple[Column, ...]
    rows: tuple[TensorRow, ...]

    def groups(self) -> dict[Group, int]:
        """How many rows share a key without its numbers, and the values of shared columns."""
        return Counter(map(self._group, self.rows))

    def packed(self) -> dict[str, Any]:
        """The list as values for the page's script.

        A row is the place of its group, the numbers of its key, and its other values. Texts are places among ``words``.
        """
        own = [(place, column.kind) for place, column in enumerate(self.columns) if not column.is_shared]
        words: dict[str, int] = {}
        groups: dict[Group, int] = {}
        rows = [
            [
                groups.setdefault(self._group(row), len(groups)),
                " ".join(key_numbers(row.key)),
                *(_packed(row.values[place], kind, words) for place, kind in own),
            ]
            for row in self.rows
        ]
        columns = [{"name": column.name, "kind": column.kind, "shared": column.is_shared} for column in self.columns]
        return {
            "what": self.what,
            "columns": columns,
            "groups": [[*map(_shown, group)] for group in groups],
            "words": [*words],
            "rows": rows,
        }

    def _group(self, row: TensorRow) -> Group:
        shared = (value for column, value in zip(self.columns, row.values, strict=True) if column.is_shared)
        return (_name(row.key), *shared)


def key_numbers(key: str) -> list[str]:
    """The numbers that ``key`` has at the stars of its name."""
    parts = zip(_name(key).split("."), key.split("."), strict=True)
    return [number for star, number in parts if star == "*" != number]


def _name(key: str) -> str:
    """``key`` without numbers; as it is if it has a star of its own."""
    return key if "*" in key else numberless(key)


def _packed(value: Value, kind: Kind, words: dict[str, int]) -> object:
    """``value``; of a text, its place among ``words``. What JSON has no number for is a text."""
    if isinstance(value, str) and kind in {"text", "choice"}:
        return words.setdefault(printable(value), len(words))
    return _shown(value)


def _shown(value: Value) -> object:
    if isinstance(value, str):
        return printable(value)
    return [value.bytes, value.text] if isinstance(value, Size) else as_number(value)
