"""Numbers that a new model starts from are told from trained ones, and nothing else is taken for them."""

from collections.abc import Callable
from math import inf, nan

import pytest
import torch
from thinning import rarely

from internvl_bridge.checkpoint.random_matrix import is_correlated, looks_random

Matrix = torch.Tensor
SHAPES = [(128, 128), (16, 1024), (8, 2048), (1024, 16), (64, 40)]


def drawn(seed: int, rows: int = 16, columns: int = 1024, deviation: float = 0.02) -> Matrix:
    """What transformers' initialisation of a matrix draws."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64) * deviation


def fresh(matrix: Matrix, deviation: float = 0.02) -> bool:
    return looks_random(matrix.double().tolist(), deviation)


@pytest.mark.parametrize(("shape", "count"), [(SHAPES[0], 60), *(rarely((shape, 210)) for shape in SHAPES)])
def test_new_matrices_are_fresh(shape: tuple[int, int], count: int):
    """By many seeds: what is missed once in a thousand is missed for every hundredth checkpoint with experts."""
    dtypes = (torch.bfloat16, torch.float32, torch.float16)
    seeds = range(count)
    assert [seed for seed in seeds if not fresh(drawn(seed, *shape).to(dtypes[seed % 3]))] == []


@pytest.mark.parametrize("deviation", [1e-4, 0.006, 0.05, 1.0, 30.0])
def test_the_deviation_may_be_any(deviation: float):
    matrix = drawn(0, deviation=deviation)
    assert fresh(matrix.bfloat16(), deviation)
    assert not fresh(matrix, deviation * 1.06)
    assert not fresh(matrix, deviation / 1.06)


@pytest.mark.parametrize("seed", range(8))
def test_a_part_of_a_larger_matrix_is_fresh(seed: int):
    assert fresh(drawn(seed, 300, 600)[::7, ::5])


def normalised(matrix: Matrix) -> Matrix:
    """The same with the root mean square of new numbers: only its distribution is left to tell."""
    return matrix / matrix.square().mean().sqrt() * 0.02


def uniform(seed: int) -> Matrix:
    return torch.rand(16, 1024, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 0.5


def student(seed: int, freedom: int) -> Matrix:
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(freedom + 1, 16, 1024, generator=generator, dtype=torch.float64)
    return parts[0] / parts[1:].square().mean(0).sqrt()


def common_direction(seed: int, share: float) -> Matrix:
    """All rows have the same vector in them, as embeddings do."""
    return drawn(seed) + share * drawn(seed + 1000)[:1]


def common_column(seed: int, share: float) -> Matrix:
    """The elements of a row have their mean in common."""
    return drawn(seed, 128, 128) + share * drawn(seed + 1000, 128, 128)[:, :1]


def scales(seed: int, count: int, spread: float) -> Matrix:
    return (spread * drawn(seed + 1000, count, 1, 1.0)).exp()


TRAINED: dict[str, Callable[[int], Matrix]] = {
    "5% wider": lambda seed: drawn(seed) * 1.05,
    "5% narrower": lambda seed: drawn(seed) / 1.05,
    "a mean": lambda seed: drawn(seed) + 0.02 * 0.08,
    "a small mean": lambda seed: drawn(seed, 128, 128) + 0.02 * 0.065,
    "a negative mean": lambda seed: drawn(seed) - 0.02 * 0.08,
    "scales of 16 rows": lambda seed: normalised(drawn(seed) * scales(seed, 16, 0.2)),
    "scales of 128 rows": lambda seed: normalised(drawn(seed, 128, 128) * scales(seed, 128, 0.1)),
    "scales of 1024 columns": lambda seed: normalised(drawn(seed) * scales(seed, 1024, 0.15).T),
    "scales of 128 columns": lambda seed: normalised(drawn(seed, 128, 128) * scales(seed, 128, 0.1).T),
    "one loud row": lambda seed: normalised(drawn(seed) * torch.tensor([1.5, *[1.0] * 15])[:, None]),
    "one loud column": lambda seed: normalised(drawn(seed) * torch.tensor([4.0, *[1.0] * 1023])),
    "columns that are alike": lambda seed: normalised(drawn(seed)).sort(0).values,
    "rows that repeat": lambda seed: drawn(seed)[:4].repeat(4, 1),
    "columns that repeat": lambda seed: drawn(seed)[:, :64].repeat(1, 16),
    "a common direction": lambda seed: normalised(common_direction(seed, 0.4)),
    "means of rows": lambda seed: normalised(common_column(seed, 0.3)),
    "Student's t, 5": lambda seed: normalised(student(seed, 5)),
    "Student's t, 12": lambda seed: normalised(student(seed, 12)),
    "uniform": lambda seed: normalised(uniform(seed)),
    "signs": lambda seed: normalised(uniform(seed).sign()),
    "one outlier": lambda seed: torch.cat([drawn(seed).flatten()[1:], torch.tensor([0.15])]).view(16, 1024),
    "one negative outlier": lambda seed: torch.cat([drawn(seed).flatten()[1:], torch.tensor([-0.15])]).view(16, 1024),
    "half of it zeros": lambda seed: normalised(drawn(seed) * (uniform(seed) > 0)),
    "zero rows": lambda seed: normalised(drawn(seed) * (torch.arange(16) % 4 > 0)[:, None]),
    "constant": lambda seed: torch.full((16, 1024), 0.02 * (-1) ** seed),
    "large": lambda seed: drawn(seed) * 1e30,
    "tiny": lambda seed: drawn(seed) * 1e-30,
}


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("seeds", [range(4), rarely(range(24))])
def test_trained_matrices_are_not_fresh(seeds: range, kind: str):
    assert [seed for seed in seeds if fresh(TRAINED[kind](seed))] == []


ODD = {
    "zeros": torch.zeros(16, 1024),
    "zeros, negative ones": -torch.zeros(2, 2),
    "so small that squares vanish": torch.full((4, 4), 1e-200, dtype=torch.float64),
    "so small that fourth powers vanish": torch.full((4, 4), 1e-90, dtype=torch.float64),
    "so large that squares do not exist": torch.full((4, 4), 1e300, dtype=torch.float64),
    "NaN": torch.full((16, 1024), nan),
    "infinite": torch.full((16, 1024), inf),
    "infinite, negative": torch.full((16, 1024), -inf),
    "NaN first, then infinities": torch.tensor([[nan, inf], [-inf, 0.01]]),
    "infinities": torch.tensor([[inf, -inf], [-inf, inf]]),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_numbers_are_not_fresh(kind: str):
    assert fresh(ODD[kind]) is False


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (7, 500), (15, 1023)])
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_one_odd_number_is_enough(value: float, place: tuple[int, int]):
    matrix = drawn(3)
    matrix[place] = value
    assert fresh(matrix) is False


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 1), (1, 16_384), (16_384, 1), (2, 2), (3, 2)])
def test_little_is_no_evidence_and_no_error(shape: tuple[int, int]):
    assert fresh(drawn(0, *shape)) in {True, False}
    assert fresh(torch.zeros(shape)) is False
    assert fresh(torch.full(shape, 0.02)) in {True, False}


# Related matrices


def related(left: Matrix, right: Matrix) -> bool:
    return is_correlated(left.double().tolist(), right.double().tolist())


def test_independent_matrices_are_not_related():
    assert [seed for seed in range(120) if related(drawn(seed), drawn(seed + 1000) * 3)] == []


@pytest.mark.parametrize("factor", [1.0, -1.0, 100.0, 1e-6])
def test_a_matrix_is_related_to_its_multiples(factor: float):
    assert related(drawn(0), drawn(0) * factor)
    assert related(drawn(0) * factor, drawn(0))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("sign", [1, -1])
def test_a_little_in_common_is_seen(sign: int, seed: int):
    assert related(drawn(seed), sign * 0.1 * drawn(seed) + drawn(seed + 1000))


@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_one_odd_number_does_not_hide_a_relation(value: float):
    matrix = drawn(0)
    matrix[3, 5] = value
    assert related(drawn(0), matrix)
    assert related(matrix, drawn(0))
    assert not related(drawn(1), matrix)


def test_what_is_far_from_zero_is_related_to_nothing_fresh():
    assert not related(drawn(0), torch.full((16, 1024), 5.0))


@pytest.mark.parametrize("kind", ODD)
def test_odd_numbers_are_related_to_nothing_fresh(kind: str):
    odd = ODD[kind]
    ours = drawn(0, *odd.shape)
    assert related(ours, odd) in {True, False}
    assert related(odd, ours) in {True, False}
    assert not related(torch.zeros(odd.shape), odd)
