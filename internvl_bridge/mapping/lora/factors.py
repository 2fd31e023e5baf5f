"""Factors: which rows and columns of stored tensors make up the change of a matrix, and those of a converted adapter.

A target is zero but for its blocks. Nothing is computed, unless a block is doubled or halved: that changes exponents.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isclose

from internvl_bridge.mapping.lora.keys import Part

MERGE = "Merge it into its base model, and convert the result: internvl-bridge merge BASE MERGED --adapter ADAPTER"
"""What to do with an adapter that the other format cannot say exactly."""
MERGE_IN_PEFT = "Merge it in PEFT (merge_and_unload), and use what that saves."
"""What to do with an adapter that is understood by PEFT alone."""


@dataclass(frozen=True, slots=True)
class Region:
    """Some rows ``[start, stop)`` and every ``step``-th column of the stored tensor ``key``, seen as a matrix.

    ``transposed``: its columns are taken as rows.
    """

    key: str
    rows: tuple[int, int]
    columns: tuple[int, int]
    step: int = 1
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of what is taken, after transposing."""
        height, width = self.rows[1] - self.rows[0], -(-(self.columns[1] - self.columns[0]) // self.step)
        return (width, height) if self.transposed else (height, width)

    def part(self, rows: tuple[int, int] | None = None, columns: tuple[int, int] | None = None) -> "Region":
        """Some rows and columns of what this region takes."""
        down, across = (columns, rows) if self.transposed else (rows, columns)
        result = self
        if down is not None:
            result = replace(result, rows=(self.rows[0] + down[0], self.rows[0] + down[1]))
        if across is not None:
            start = self.columns[0] + across[0] * self.step
            stop = self.columns[0] + (across[1] - 1) * self.step + 1
            result = replace(result, columns=(start, stop))
        return result


@dataclass(frozen=True, slots=True)
class Block:
    """What is stored at ``source``, and where it lies in a target. It is multiplied by two to the ``exponent``."""

    source: Region
    target: Region
    exponent: int = 0


@dataclass(frozen=True, slots=True)
class FactorRecipe:
    """A tensor of a converted adapter: its dtype, its shape, and the blocks that are not zero.

    ``matrix`` is how the blocks see it: rows and columns.
    """

    dtype: str
    shape: tuple[int, ...]
    matrix: tuple[int, int]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Scaling:
    """What PEFT multiplies B A by: alpha / rank, with rsLoRA alpha / sqrt(rank)."""

    alpha: float
    rank: int
    is_rslora: bool

    @property
    def value(self) -> float:
        return self.alpha / (self.rank**0.5 if self.is_rslora else self.rank)

    def with_rank(self, rank: int) -> "Scaling":
        """The scaling of the same value at another rank; alpha is a whole number where it can be one.

        With rsLoRA, alpha is a root: the value can differ in its last bit.
        """
        if rank == self.rank:
            return self
        alpha = self.alpha * (rank / self.rank) ** 0.5 if self.is_rslora else self.alpha * rank / self.rank
        is_whole = isclose(alpha, round(alpha), rel_tol=1e-14)
        return Scaling(round(alpha) if is_whole else alpha, rank, self.is_rslora)


@dataclass(frozen=True, slots=True)
class Lora:
    """What changes one matrix of ``[out, in]`` elements: ``scaling`` times ``b`` ``[out, rank]`` times ``a``.

    ``rows`` are vectors with an element for each row, by what they are: a bias, the magnitudes of DoRA.
    """

    a: Region
    b: Region
    scaling: Scaling
    rows: Mapping[Part, Region]
