"""Converting moves elements and computes nothing, so it can be exchanged with what is done to each element alone.

What holds for weights holds for anything of their shapes: differences, bits that changed, an optimizer's moments.
"""

import json

import pytest
import torch
from support import DATA, NAMES, load_all

import internvl_bridge

Tensors = dict[str, torch.Tensor]


def models(name: str) -> tuple[Tensors, Tensors, dict[str, object]]:
    """Two models of one shape, untied, and their config.json."""
    directory = DATA / "custom" / name
    config = json.loads((directory / "config.json").read_text())
    one = load_all(directory)
    generator = torch.Generator().manual_seed(0)
    other = {key: torch.randn(tensor.shape, generator=generator).to(tensor.dtype) for key, tensor in one.items()}
    return one, other, config


def both_ways(tensors: Tensors, config: dict[str, object]) -> list[Tensors]:
    hf = internvl_bridge.convert_state_dict(tensors, "to-hf", config=config)
    return [hf, internvl_bridge.convert_state_dict(hf, "to-custom", config=config)]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.element_size()])


@pytest.mark.parametrize("name", [name for name in NAMES if "tied" not in name])
def test_bits_that_changed_are_converted_like_weights(name: str):
    one, other, config = models(name)
    changed = {key: (bits(one[key]) ^ bits(other[key])).view(one[key].dtype) for key in one}
    converted = zip(both_ways(one, config), both_ways(other, config), both_ways(changed, config), strict=True)
    for ours, theirs, differing in converted:
        assert ours.keys() == theirs.keys() == differing.keys()
        assert all(torch.equal(bits(ours[key]) ^ bits(theirs[key]), bits(differing[key])) for key in ours)


@pytest.mark.parametrize("name", [name for name in NAMES if "tied" not in name])
def test_sums_and_moments_are_converted_like_weights(name: str):
    one, other, config = models(name)
    moments = {key: tensor.float() for key, tensor in one.items()}
    deltas = {key: tensor.float() for key, tensor in other.items()}
    sums = {key: moments[key] + deltas[key] for key in moments}
    converted = zip(both_ways(moments, config), both_ways(deltas, config), both_ways(sums, config), strict=True)
    for ours, theirs, both in converted:
        assert all(torch.equal(ours[key] + theirs[key], both[key]) for key in both)
