"""Whether a matrix holds the random numbers that a new model starts from: normal, independent, of one deviation."""

from collections.abc import Sequence
from math import isfinite, sqrt

Rows = Sequence[Sequence[float]]

_STANDARD_ERRORS = 5.0
"""How far a statistic of fresh numbers may lie from its expectation: one in two million does not."""
_LARGEST = 7.0
"""In deviations; the largest of 16,384 normal numbers exceeds it once in twenty million matrices."""


def looks_random(rows: Rows, deviation: float) -> bool:
    """Whether the sampled ``rows`` of a matrix look like independent normal numbers with mean 0 and ``deviation``.

    Trained weights fail in several ways: their deviation is not exactly that of the initialisation, nor the same in
    every row and column; they have heavy tails and common directions. Numbers that were trained for a short while
    after they had been drawn still pass. Fewer than two rows or columns do not show anything.
    """
    if len(rows) < 2 or len(rows[0]) < 2:
        return False
    scaled = [[value / deviation for value in row] for row in rows]
    flat = [value for row in scaled for value in row]
    count = len(flat)
    mean_square = sum(value * value for value in flat) / count
    if not all(abs(value) <= _LARGEST for value in flat) or mean_square**2 == 0:
        return False
    errors = (
        sum(flat) / sqrt(count),
        (sqrt(mean_square) - 1) * sqrt(2 * count),
        (sum(value**4 for value in flat) / count / mean_square**2 - 3) * sqrt(count / 24),
        *_errors_along(scaled),
        *_errors_along(list(zip(*scaled, strict=True))),
    )
    return all(abs(error) < _STANDARD_ERRORS for error in errors)


def is_correlated(left: Rows, right: Rows) -> bool:
    """Whether two samples of the same places in two matrices are correlated, as independent ones never are."""
    pairs = [(x, y) for one, other in zip(left, right, strict=True) for x, y in zip(one, other, strict=True)]
    pairs = [(x, y) for x, y in pairs if isfinite(x) and isfinite(y)]
    norm = sqrt(sum(x * x for x, _ in pairs) * sum(y * y for _, y in pairs))
    return norm > 0 and abs(sum(x * y for x, y in pairs)) / norm * sqrt(len(pairs)) >= _STANDARD_ERRORS


def _errors_along(rows: Rows) -> tuple[float, float]:
    """In standard errors: how much the rows differ in their mean squares, and how far their means are from 0."""
    count, width = len(rows), len(rows[0])
    squares = [sum(value * value for value in row) / width for row in rows]
    middle = sum(squares) / count
    variance = sum((square - middle) ** 2 for square in squares) / (count - 1)
    means = sum((sum(row) / width) ** 2 for row in rows) / count
    # 2 / width is the variance of a mean of squares; its own error grows where few squares are averaged.
    return (
        (variance * width / 2 - 1) * sqrt((count - 1) / 2 / (1 + 6 / width)),
        (means * width - 1) * sqrt(count / 2),
    )
