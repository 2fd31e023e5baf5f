"""The in-memory interpreter: torch state dicts in, torch state dicts out."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import load_all, same_bits

import internvl_bridge
from internvl_bridge.errors import (
    ConfigError,
    ContradictionError,
    IncompleteGroupError,
    MissingKeyError,
    UnknownKeyError,
)
from internvl_bridge.tools.internvl_custom2hf import convert_keys_to_hf
from internvl_bridge.tools.internvl_hf2custom import compute_l2_distance, convert_keys_back

Custom = Callable[[str], Path]


def config_of(directory: Path):
    return json.loads((directory / "config.json").read_text())


@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3-6b", "phi3-300m", "gptoss-300m", "llama-6b", "qwen3moe-6b"])
def test_without_config_the_keys_tell_the_family(name: str, custom: Custom):
    source = custom(name)
    tensors = load_all(source)
    there = internvl_bridge.convert_state_dict(tensors, "to-hf")
    assert there.keys() == internvl_bridge.convert_state_dict(tensors, "to-hf", config=config_of(source)).keys()
    back = internvl_bridge.convert_state_dict(there, "to-custom")
    assert back.keys() == tensors.keys()
    assert all(same_bits(back[key], tensors[key]) for key in tensors)


def test_internlm2_needs_its_head_counts(custom: Custom):
    source = custom("internlm2-300m")
    with pytest.raises(ConfigError, match="numbers of heads"):
        internvl_bridge.convert_state_dict(load_all(source), "to-hf")
    there = internvl_bridge.convert_state_dict(load_all(source), "to-hf", config=config_of(source))
    assert "language_model.model.layers.1.self_attn.k_proj.weight" in there
    llama = internvl_bridge.convert_state_dict(there, "to-custom")
    assert "language_model.model.layers.1.self_attn.k_proj.weight" in llama


def test_renamed_tensors_are_the_same_objects_and_split_ones_are_views(custom: Custom):
    tensors = load_all(custom("qwen2-300m"))
    there = internvl_bridge.convert_state_dict(tensors, "to-hf")
    assert there["language_model.lm_head.weight"] is tensors["language_model.lm_head.weight"]
    fused = tensors["vision_model.encoder.layers.0.attn.qkv.weight"]
    part = there["vision_tower.encoder.layer.0.attention.k_proj.weight"]
    assert part.data_ptr() == fused[32:64].data_ptr()


def test_tensors_that_are_not_contiguous_keep_their_values(custom: Custom):
    tensors = load_all(custom("qwen2-300m"))
    key = "vision_model.encoder.layers.0.attn.qkv.weight"
    tensors[key] = tensors[key].t().contiguous().t()
    there = internvl_bridge.convert_state_dict(tensors, "to-hf")
    assert torch.equal(there["vision_tower.encoder.layer.0.attention.v_proj.weight"], tensors[key][64:])


def test_meta_tensors_are_planned_without_data(custom: Custom):
    tensors = {key: tensor.to("meta") for key, tensor in load_all(custom("qwen3-300m")).items()}
    there = internvl_bridge.convert_state_dict(tensors, "to-hf")
    assert there["vision_tower.encoder.layer.0.attention.q_proj.weight"].shape == (32, 32)
    assert all(tensor.is_meta for tensor in there.values())


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("vision_tower.encoder.layer.0.attention.k_proj.weight", IncompleteGroupError),
        ("language_model.model.norm.weight", MissingKeyError),
    ],
)
def test_with_config_nothing_may_be_missing(key: str, error, custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    tensors = load_all(tmp_path / "hf")
    del tensors[key]
    with pytest.raises(error, match=key.replace(".", r"\.")):
        internvl_bridge.convert_state_dict(tensors, "to-custom", config=config_of(tmp_path / "hf"))


def test_without_config_a_partial_dict_is_fine_but_a_partial_group_is_not(custom: Custom):
    tensors = internvl_bridge.convert_state_dict(load_all(custom("qwen2-300m")), "to-hf")
    tower = {key: tensor for key, tensor in tensors.items() if key.startswith("vision_tower.")}
    assert len(internvl_bridge.convert_state_dict(tower, "to-custom")) == 4 + 2 * 14
    del tower["vision_tower.encoder.layer.1.attention.v_proj.bias"]
    with pytest.raises(IncompleteGroupError, match=r"layer\.1\.attention\.v_proj\.bias is missing"):
        internvl_bridge.convert_state_dict(tower, "to-custom")


def test_unknown_keys_are_refused(custom: Custom):
    tensors = load_all(custom("qwen2-300m"))
    tensors["language_model.model.layers.0.self_attn.extra.weight"] = torch.zeros(1)
    with pytest.raises(UnknownKeyError, match=r"self_attn\.extra\.weight"):
        internvl_bridge.convert_state_dict(tensors, "to-hf")


def test_the_drop_in_functions_feed_load_state_dict(custom: Custom, tmp_path: Path):
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    source = custom("qwen3-6b")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    model = InternVLForConditionalGeneration(InternVLConfig.from_pretrained(tmp_path / "hf"))
    tensors = load_all(source)
    model.load_state_dict(convert_keys_to_hf(tensors), strict=True)
    restored = convert_keys_back(model.state_dict())
    assert restored.keys() == tensors.keys()
    assert compute_l2_distance({k: t.float() for k, t in tensors.items()}, restored) == 0.0


def test_the_distance_is_euclidean_and_skips_nothing():
    left = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[0.0]])}
    right = {"a": torch.tensor([0.0, 0.0]), "b": torch.tensor([[4.0]])}
    assert compute_l2_distance(left, right) == 5.0
    with pytest.raises(ContradictionError, match="b is missing"):
        compute_l2_distance(left, {"a": right["a"]})
    with pytest.raises(ContradictionError, match="b is missing"):
        compute_l2_distance(left, right | {"b": torch.zeros(1)})
    assert math.isnan(compute_l2_distance(left, right | {"b": torch.tensor([[float("nan")]])}))


def test_the_distance_is_summed_in_float64():
    left, right = torch.full((1 << 20,), 1e-4), torch.zeros(1 << 20)
    exact = (float(left[0].double()) ** 2 * (1 << 20)) ** 0.5
    assert compute_l2_distance({"a": left}, {"a": right}) == pytest.approx(exact, rel=1e-12)


def test_modules_can_be_compared():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    assert compute_l2_distance(one, other) == 0.0
    with torch.no_grad():
        other.bias[0] += 2
    assert compute_l2_distance(one, other) == pytest.approx(2.0, rel=1e-6)


def test_equal_infinities_are_no_distance_apart():
    left = {"a": torch.tensor([float("inf"), -float("inf"), 3.0])}
    assert compute_l2_distance(left, {"a": torch.tensor([float("inf"), -float("inf"), 0.0])}) == 3.0
    assert compute_l2_distance(left, {"a": -left["a"]}) == float("inf")
