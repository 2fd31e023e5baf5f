"""What an adapter of the other format cannot say exactly is refused, with the tensor and the way out."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from adapters import P, lora_config, random_adapter, weights_of, whole
from safetensors.torch import load_file
from state_dicts import MOE, Tensors, config_of
from support import DATA

from internvl_bridge import BridgeError, convert_adapter_state_dict
from internvl_bridge.errors import ContradictionError, OptionError, UnknownKeyError, UnsupportedModelError

NAME = "qwen2-300m"
Q, K = (f"model.vision_tower.encoder.layer.0.attention.{role}_proj" for role in "qk")
HF_MLP = "model.language_model.layers.0.mlp.up_proj"
GATE = "model.language_model.layers.0.mlp.gate"
EXPERTS = "model.language_model.layers.0.mlp.experts"


def refusal(
    error: type[BridgeError], tensors: Tensors, direction: str, name: str = NAME, **options: Any
) -> BridgeError:
    settings = {key: options.pop(key) for key in ("transformers",) if key in options}
    with pytest.raises(error) as caught:
        convert_adapter_state_dict(tensors, lora_config(**options), direction, config=config_of(name), **settings)
    return caught.value


def factors(module: str, rows: int, columns: int, rank: int = 2) -> Tensors:
    return {
        f"{P}{module}.lora_A.weight": whole(rank, columns),
        f"{P}{module}.lora_B.weight": whole(rows, rank),
    }


def test_parts_that_are_scaled_otherwise():
    tensors = {**factors(Q, 32, 32), **factors(K, 32, 32)}
    error = refusal(UnsupportedModelError, tensors, "to-custom", alpha_pattern={"q_proj": 12})
    assert f"{K}.weight by 2, others by 6" in error.reason
    assert "internvl-bridge merge BASE MERGED" in error.remedy


def test_values_that_are_too_small_to_be_scaled():
    tensors = {**factors(Q, 32, 32), **factors(K, 32, 32)}
    tensors[f"{P}{K}.lora_B.weight"] = torch.full((32, 2), 2.0**-149)
    error = refusal(UnsupportedModelError, tensors, "to-custom", alpha_pattern={"q_proj": 8})
    assert "too small to be scaled by 2 to the -1" in error.reason


def test_dora_of_some_parts():
    tensors = {**factors(Q, 32, 32), f"{P}{Q}.lora_magnitude_vector": whole(32)}
    error = refusal(UnsupportedModelError, tensors, "to-custom", use_dora=True)
    assert f"changes {Q}.weight with DoRA, but not {K}.weight" in error.reason


def test_a_part_that_is_replaced_as_a_whole():
    error = refusal(UnsupportedModelError, {f"{P}{Q}.weight": whole(32, 32)}, "to-custom")
    assert (
        f"replaces {Q}.weight as a whole, and vision_model.encoder.layers.0.attn.qkv.weight is made of" in error.reason
    )


def test_parts_that_are_replaced_in_two_dtypes():
    tensors = {f"{P}{Q.replace('q_proj', f'{role}_proj')}.weight": whole(32, 32) for role in "qkv"}
    tensors[f"{P}{K}.weight"] = tensors[f"{P}{K}.weight"].double()
    assert "tensors of different dtypes" in refusal(ContradictionError, tensors, "to-custom").reason


def test_factors_in_two_dtypes():
    tensors = {**factors(Q, 32, 32), **{key: t.double() for key, t in factors(K, 32, 32).items()}}
    assert "become one tensor, and are of different dtypes" in refusal(ContradictionError, tensors, "to-custom").reason


def test_an_adapter_without_tensors():
    assert "has no tensors" in refusal(ContradictionError, {}, "to-hf").reason


@pytest.mark.parametrize("vector", ["lora_magnitude_vector", "lora_B.bias"])
def test_vectors_of_experts_for_transformers_5(vector: str):
    tensors = random_adapter(weights_of(MOE, "custom"), lambda key: ".0.mlp.experts." in key)
    tensors |= {
        key.replace("lora_B.weight", vector): whole(t.shape[0]) for key, t in tensors.items() if "lora_B" in key
    }
    error = refusal(UnsupportedModelError, tensors, "to-hf", MOE)
    assert "with biases or magnitudes (DoRA), which PEFT does not have for experts" in error.reason
    assert "--transformers 4" in error.remedy


@pytest.mark.parametrize(("part", "shape"), [("A", (2, 5)), ("B", (64, 3))])
def test_embeddings_of_other_shapes_than_the_bases(part: str, shape: tuple[int, int]):
    name = f"{P}language_model.model.embed_tokens.lora_embedding_"
    rows = weights_of(NAME, "custom")["language_model.model.embed_tokens.weight"].shape[0]
    tensors = {f"{name}A": whole(2, rows), f"{name}B": whole(64, 2), f"{name}{part}": whole(*shape)}
    assert f"lora_embedding_{part} has shape" in refusal(ContradictionError, tensors, "to-hf").reason


def test_routers_for_transformers_5():
    tensors = random_adapter(weights_of(MOE, "custom"), lambda key: ".mlp.gate." in key)
    error = refusal(UnsupportedModelError, tensors, "to-hf", MOE)
    assert f"routers of experts ({GATE}" in error.reason
    assert "--transformers 4" in error.remedy


def test_experts_that_are_scaled_otherwise():
    tensors = random_adapter(weights_of(MOE, "custom"), lambda key: ".0.mlp.experts." in key and "down" in key)
    error = refusal(UnsupportedModelError, tensors, "to-hf", MOE, alpha_pattern={"1.down_proj": 8})
    assert f"{EXPERTS}.down_proj holds all experts, and the adapter scales them differently" in error.reason


def test_an_adapter_of_the_format_that_is_asked_for():
    error = refusal(UnsupportedModelError, factors(Q, 32, 32), "to-hf")
    assert "is an adapter of a model in the hf format" in error.reason
    custom = factors("vision_model.encoder.layers.0.attn.qkv", 96, 32)
    assert "Use 'internvl-bridge to-hf' to convert it." in refusal(UnsupportedModelError, custom, "to-custom").remedy


def test_modules_that_the_base_does_not_have():
    error = refusal(UnknownKeyError, factors("lm.q_proj", 4, 4), "to-custom")
    assert "No tensor of the adapter fits the model" in error.reason
    assert "--base BASE" in error.remedy
    tensors = {**factors(Q, 32, 32), **factors(Q.replace("layer.0", "layer.7"), 32, 32)}
    error = refusal(UnknownKeyError, tensors, "to-custom")
    assert "Only 2 of the adapter's 4 tensors fit the model" in error.reason
    assert "layer.7" in error.reason


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda t: t.update({f"{P}{Q}.lora_A.weight": whole(2, 31)}), "lora_A.weight has shape [2, 31]"),
        (lambda t: t.update({f"{P}{Q}.lora_B.weight": whole(31, 2)}), "lora_B.weight has shape [31, 2]"),
        (lambda t: t.update({f"{P}{Q}.lora_B.bias": whole(31)}), "lora_B.bias has shape [31]"),
        (lambda t: t.update({f"{P}{Q}.lora_A.weight": whole(2)}), "it should have two dimensions"),
        (lambda t: t.update({f"{P}{Q}.lora_A.weight": whole(0, 32)}), "it should have two dimensions"),
        (lambda t: t.pop(f"{P}{Q}.lora_B.weight"), "but not the lora_B.weight that belongs to it"),
        (lambda t: t.update({f"{P}{Q}.weight": whole(32, 31)}), "proj.weight has shape [32, 31]"),
    ],
)
def test_tensors_of_other_shapes_than_the_bases(spoil: Callable[[Tensors], object], reason: str):
    tensors = factors(Q, 32, 32)
    spoil(tensors)
    assert reason in refusal(ContradictionError, tensors, "to-custom").reason


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        (((7, 64), (80, 7)), "as many rows for each of 4 experts"),
        (((8, 63), (80, 8)), "64 or 80 columns"),
        (((8, 64), (80, 7)), "the shape [80, 8]"),
    ],
)
def test_experts_of_other_shapes_than_the_bases(shapes: tuple[tuple[int, int], tuple[int, int]], reason: str):
    tensors = {f"{P}{EXPERTS}.lora_A.weight": whole(*shapes[0]), f"{P}{EXPERTS}.lora_B.weight": whole(*shapes[1])}
    options = {"target_modules": [], "target_parameters": ["experts.gate_up_proj"]}
    assert reason in refusal(ContradictionError, tensors, "to-custom", MOE, **options).reason


@pytest.mark.parametrize("key", ["lora_A.weight", "lora_B.weight"])
def test_half_a_pair_of_experts(key: str):
    options = {"target_modules": [], "target_parameters": ["experts.gate_up_proj"]}
    tensors = {f"{P}{EXPERTS}.{key}": whole(8, 64) if "A" in key else whole(80, 8)}
    assert "that belongs to it" in refusal(ContradictionError, tensors, "to-custom", MOE, **options).reason


@pytest.mark.parametrize("module", [f"{Q}.base_layer", f"{EXPERTS}.base_layer.base_layer"])
def test_wrappers_that_are_not_there(module: str):
    name = MOE if "experts" in module else NAME
    tensors = factors(module, 32, 32)
    assert "modules that the base model does not have" in refusal(UnknownKeyError, tensors, "to-custom", name).reason


def test_a_rank_that_its_config_does_not_state():
    error = refusal(ContradictionError, factors(Q, 32, 32, rank=3), "to-custom")
    assert f"gives {Q} rank 2, but its tensors have rank 3" in error.reason


@pytest.mark.parametrize(
    ("name", "reason"),
    [("dora", "with DoRA, but not"), ("patterns", "made of parts that the adapter scales differently")],
)
def test_what_peft_saved_and_the_custom_format_cannot_say(name: str, reason: str):
    directory = DATA / "adapters" / "samples" / name
    config = json.loads((directory / "adapter_config.json").read_text())
    tensors = load_file(directory / "adapter_model.safetensors")
    with pytest.raises(UnsupportedModelError, match=reason):
        convert_adapter_state_dict(tensors, config, "to-custom", config=config_of(NAME))


@pytest.mark.parametrize("version", [3, 6, "5", None])
def test_a_version_that_there_is_not(version: object):
    assert "is not a choice for transformers" in refusal(OptionError, {}, "to-hf", transformers=version).reason
