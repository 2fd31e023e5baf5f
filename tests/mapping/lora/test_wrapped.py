"""The keys of wrapped checkpoints are separated into those of the base model and those of an adapter."""

import pytest
from adapters import P

from internvl_bridge.errors import ContradictionError, UnsupportedModelError
from internvl_bridge.mapping.lora.wrapped import is_wrapped, name_in_base, unwrapped

Q = "language_model.model.layers.0.self_attn.q_proj"
EXPERTS = "model.language_model.layers.0.mlp.experts"
# What PEFT 0.21 calls them in the state dict of a PeftModel: the key, and what it is in the base or in an adapter.
NAMES = {
    f"language_model.base_model.model.{Q.partition('.')[2]}.base_layer.weight": (f"{Q}.weight", None),
    f"language_model.base_model.model.{Q.partition('.')[2]}.lora_A.default.weight": (None, f"{Q}.lora_A.weight"),
    "language_model.base_model.model.lm_head.weight": ("language_model.lm_head.weight", None),
    "mlp1.0.weight": ("mlp1.0.weight", None),
    "base_model.model.lm_head.weight": ("lm_head.weight", None),
    "base_model.model.base_model.model.lm_head.bias": ("lm_head.bias", None),
    f"base_model.model.{Q}.base_layer.bias": (f"{Q}.bias", None),
    f"base_model.model.{Q}.lora_B.default.bias": (None, f"{Q}.lora_B.bias"),
    f"{Q}.lora_B.default.weight": (None, f"{Q}.lora_B.weight"),
    f"{Q}.lora_magnitude_vector.default.weight": (None, f"{Q}.lora_magnitude_vector"),
    "embed.lora_embedding_A.default": (None, "embed.lora_embedding_A"),
    "embed.token_adapter.base_layer.weight": ("embed.weight", None),
    "embed.token_adapter.trainable_tokens_delta.default": (None, "embed.token_adapter.trainable_tokens_delta"),
    "mlp1.original_module.1.weight": ("mlp1.1.weight", None),
    "mlp1.modules_to_save.default.1.weight": (None, "mlp1.1.weight"),
    f"{EXPERTS}.base_layer.base_layer.gate_up_proj": (f"{EXPERTS}.gate_up_proj", None),
    f"{EXPERTS}.base_layer.lora_A.default.weight": (None, f"{EXPERTS}.base_layer.lora_A.weight"),
    f"{EXPERTS}.lora_A.weight": (None, f"{EXPERTS}.lora_A.weight"),
}


def test_every_name_is_that_of_the_base_or_of_the_adapter():
    found = unwrapped(NAMES)
    assert found.base == {base: key for key, (base, _) in NAMES.items() if base}
    assert found.adapter == {P + name: key for key, (_, name) in NAMES.items() if name}
    assert is_wrapped(NAMES)
    assert not is_wrapped(found.base)


def test_names_in_the_base_are_those_of_whole_weights():
    names = {key: name_in_base(key) for key in NAMES}
    assert all(names[key] == base for key, (base, _) in NAMES.items() if base)
    assert names[f"{Q}.lora_B.default.weight"] == f"{Q}.weight"
    assert names["mlp1.modules_to_save.default.1.weight"] == "mlp1.1.weight"


def test_a_module_without_its_factors_is_refused():
    with pytest.raises(ContradictionError, match=rf"{Q}.base_layer.weight is there, but nothing of the adapter"):
        unwrapped([f"{Q}.base_layer.weight", f"{Q.replace('q_', 'k_')}.lora_A.default.weight"])


def test_several_adapters_are_refused():
    keys = [f"{Q}.base_layer.weight", f"{Q}.lora_A.default.weight", f"{Q}.lora_A.other.weight"]
    with pytest.raises(UnsupportedModelError, match=r"several adapters: default, other\. .*delete_adapter"):
        unwrapped(keys)


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ContradictionError, match=f"{Q}.weight and {Q}.base_layer.weight would both be {Q}.weight"):
        unwrapped([f"{Q}.weight", f"{Q}.base_layer.weight"])
