"""How the rows of a fused projection are shared out among query, key and value."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

Block = tuple[str, int]


class Layout(Protocol):
    """The order of the blocks of rows inside a fused tensor."""

    def blocks(self, rows: int) -> Iterator[Block] | None:
        """``(role, rows)`` for each block from the first row on; None if ``rows`` cannot be shared so."""


@dataclass(frozen=True, slots=True)
class Thirds:
    """All query rows, then all key rows, then all value rows (InternViT's ``attn.qkv``)."""

    def blocks(self, rows: int) -> Iterator[Block] | None:
        third, rest = divmod(rows, 3)
        return None if rest else iter((("q", third), ("k", third), ("v", third)))


@dataclass(frozen=True, slots=True)
class GroupedQKV:
    """Per key-value head: its query heads, one key head, one value head (InternLM2's ``wqkv``).

    The fused tensor has ``(heads + 2 * kv_heads) * head_dim`` rows; no rotary permutation.
    """

    heads: int
    kv_heads: int
    head_dim: int

    def blocks(self, rows: int) -> Iterator[Block] | None:
        queries, rest = divmod(self.heads, self.kv_heads)
        if rest or rows != (self.heads + 2 * self.kv_heads) * self.head_dim:
            return None
        group = (("q", queries * self.head_dim), ("k", self.head_dim), ("v", self.head_dim))
        return (block for _ in range(self.kv_heads) for block in group)
