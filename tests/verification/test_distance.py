"""Distances between tensors, against sums that are written out here."""

from math import inf, isnan, nan, sqrt

import pytest
import torch

from internvl_bridge.verification import distance as module
from internvl_bridge.verification.distance import distance, streamed_distance
from internvl_bridge.verification.distribution import together


def windows(tensor: torch.Tensor, size: int = 1 << 21) -> list[memoryview]:
    data = bytearray(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return [memoryview(data)[start : start + size] for start in range(0, len(data), size)]


def test_all_numbers_are_those_of_the_values():
    found = distance(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([1.0, -2.0, 5.0]))
    assert (found.l2, found.norm, found.largest, found.first) == (5.0, 3.0, 4.0, 1)


def test_values_of_two_dtypes_are_compared_in_float64():
    ours = torch.tensor([1.0, 2.0, 3.0], dtype=torch.bfloat16)
    theirs = torch.tensor([1.0, 2.0, 3.0 + 2**-20])
    assert streamed_distance(("BF16", windows(ours)), ("F32", windows(ours.float()))).first is None
    found = streamed_distance(("BF16", windows(ours)), ("F32", windows(theirs)))
    assert (found.l2, found.first) == (2**-20, 2)


def test_windows_of_two_dtypes_that_end_in_different_places():
    """Two million elements are one window of one side and four of the other."""
    ours = torch.zeros(1 << 21, dtype=torch.int8)
    theirs = torch.zeros(1 << 21, dtype=torch.float32)
    theirs[-1], theirs[1 << 20] = 3.0, -4.0
    found = streamed_distance(("I8", windows(ours)), ("F32", windows(theirs)))
    assert (found.l2, found.norm, found.largest, found.first) == (5.0, 0.0, 4.0, 1 << 20)


@pytest.mark.parametrize("place", [0, module._BLOCK - 1, module._BLOCK, module._BLOCK + 7])
def test_a_difference_is_found_in_every_block(place: int):
    ours = torch.ones(module._BLOCK + 8)
    theirs = ours.clone()
    theirs[place] = 0
    found = distance(ours, theirs)
    assert (found.l2, found.norm, found.largest, found.first) == (1.0, sqrt(module._BLOCK + 8), 1.0, place)


def test_infinities_that_are_equal_are_no_difference():
    found = distance(torch.tensor([inf, -inf, 1.0]), torch.tensor([inf, -inf, 3.0]))
    assert (found.l2, found.largest, found.first) == (2.0, 2.0, 2)
    assert distance(torch.tensor([inf]), torch.tensor([-inf])).l2 == inf


def test_what_is_not_a_number_stays_so_in_every_later_block():
    ours = torch.zeros(3 * module._BLOCK)
    theirs = ours.clone()
    theirs[5], theirs[-1] = nan, 2.0
    found = distance(ours, theirs)
    assert isnan(found.l2)
    assert isnan(found.largest)
    assert found.first == 5


def test_complex_numbers_are_measured_as_two():
    found = distance(torch.tensor([3 + 4j, 1j]), torch.tensor([3 + 4j, 1j + 2]))
    assert (found.l2, found.norm, found.first) == (2.0, sqrt(26), 2)
    assert streamed_distance(("C64", windows(torch.tensor([1j]))), ("C64", windows(torch.tensor([0j])))).l2 == 1.0


def test_what_nobody_decodes_is_not_measured_and_not_equal():
    found = streamed_distance(("F4", [memoryview(b"\0")]), ("BF16", [memoryview(b"\0\0")]))
    assert isnan(found.l2)
    assert found.first == 0


def test_differences_are_counted_by_powers_of_two():
    ours = torch.zeros(12, dtype=torch.float64)
    theirs = torch.tensor([0.0, -0.0, 1.0, -1.5, 2.0, -0.25, 0.3, 1e300, 5e-324, inf, -inf, nan], dtype=torch.float64)
    found = streamed_distance(("F64", windows(ours)), ("F64", windows(theirs)), distributed=True).distribution
    assert found is not None
    assert found.octaves == {-1023: 1, -2: 2, 0: 2, 1: 1, 996: 1}
    assert (found.unchanged, found.not_finite, found.elements) == (2, 3, 12)


def test_a_distribution_is_that_of_all_blocks(monkeypatch: pytest.MonkeyPatch):
    ours, theirs = torch.arange(1000.0), torch.arange(1000.0) * 1.5
    whole = streamed_distance(("F32", windows(ours)), ("F32", windows(theirs)), distributed=True)
    monkeypatch.setattr(module, "_BLOCK", 64)
    assert streamed_distance(("F32", windows(ours)), ("F32", windows(theirs)), distributed=True) == whole
    halves = [
        streamed_distance(("F32", windows(ours[part])), ("F32", windows(theirs[part])), distributed=True).distribution
        for part in (slice(0, 300), slice(300, 1000))
    ]
    assert together(half for half in halves if half) == whole.distribution
