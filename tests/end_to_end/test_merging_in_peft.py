"""A merged checkpoint computes what real PEFT computes with the adapter beside the base."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support import DATA, copy_custom

import internvl_bridge

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")  # PEFT uses what transformers deprecates
    for kind in ("FutureWarning", "RuntimeWarning", "UserWarning", "DeprecationWarning")
]
MAJOR = int(transformers.__version__.partition(".")[0])
NEW_PEFT = tuple(map(int, peft.__version__.split(".")[:2])) >= (0, 20)
"""Older versions do not save the biases of adapted modules, for instance."""
ADAPTERS = DATA / "adapters"
LIMIT = 1e-5
"""Relative to the largest logit: the sums differ in their order."""


def model_of(directory: Path) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def logits_of(model: Any, name: str) -> torch.Tensor:
    inputs = load_file(DATA / "expected" / f"{name}.safetensors")
    with torch.no_grad():
        logits: torch.Tensor = model(pixel_values=inputs["pixel_values"], input_ids=inputs["input_ids"]).logits
    return logits


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() < LIMIT * expected.abs().max()


def bases(name: str, directory: Path) -> tuple[Path, Path]:
    """The stored model in float32, in both formats."""
    copy_custom(name, directory / "stored")
    internvl_bridge.cast(directory / "stored", directory / "custom", dtype="float32")
    internvl_bridge.to_hf(directory / "custom", directory / "hf")
    return directory / "custom", directory / "hf"


@pytest.mark.parametrize("base_format", ["custom", "hf"])
@pytest.mark.parametrize("adapter", sorted(ADAPTERS.glob("*/*-*/")), ids=lambda path: f"{path.parent.name} {path.name}")
def test_stored_adapters(adapter: Path, base_format: str, tmp_path: Path):
    name = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"].removesuffix("-hf")
    custom, hf = bases(name, tmp_path)
    internvl_bridge.merge(custom if base_format == "custom" else hf, tmp_path / "merged", adapters=[adapter])
    loads = tmp_path / "merged"
    if base_format == "custom":
        internvl_bridge.to_hf(loads, tmp_path / "loads")
        loads = tmp_path / "loads"
    found = logits_of(model_of(loads), name)
    stored = adapter.with_name(f"{adapter.name}.logits.safetensors")
    if stored.exists():
        assert_close(found, load_file(stored)["l"])
    if adapter.parent.name == "hf" and (MAJOR >= 5 or "experts" not in adapter.name):
        assert_close(found, logits_of(peft.PeftModel.from_pretrained(model_of(hf), adapter).eval(), name))


LM = "model.language_model"
CONFIGS: dict[str, dict[str, Any]] = {
    "rsLoRA with patterns": {
        "target_modules": ["q_proj", "v_proj", "up_proj", "fc1", "linear_2"],
        "use_rslora": True,
        "rank_pattern": {"up_proj": 4},
        "alpha_pattern": {r".*\.0\..*q_proj": 3},
    },
    "DoRA": {"target_modules": ["q_proj", "o_proj", "fc2", "projection", "lm_head"], "use_dora": True},
    "biases": {"target_modules": ["linear_1", "fc1"], "lora_bias": True, "bias": "lora_only" if NEW_PEFT else "none"},
    "modules in full": {"target_modules": ["k_proj"], "modules_to_save": ["multi_modal_projector", "lm_head"]},
    "embeddings": {"target_modules": ["embed_tokens", "projection"]},
    "tokens and the head": {"target_modules": ["v_proj", "lm_head"], "trainable_token_indices": [5, 2]},
    "tokens": {"target_modules": ["v_proj"], "trainable_token_indices": {"embed_tokens": [5, 2]}},
}


def adapted(hf: Path, config: dict[str, Any]) -> Any:
    """A PeftModel whose adapter changes what the model computes."""
    torch.manual_seed(0)
    made = peft.get_peft_model(model_of(hf), peft.LoraConfig(r=2, lora_alpha=6, init_lora_weights=False, **config))
    with torch.no_grad():
        for key, parameter in made.named_parameters():
            if parameter.requires_grad and "lora_" not in key:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            elif "lora_magnitude_vector" in key:
                parameter.mul_(1.2)
    return made.eval()


@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3-300m-tied"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_adapters_of_every_kind_alone_and_in_the_weights(kind: str, name: str, tmp_path: Path):
    if kind == "tokens and the head" and not NEW_PEFT:
        pytest.skip("older versions cannot train both")
    custom, hf = bases(name, tmp_path)
    made = adapted(hf, CONFIGS[kind])
    expected = logits_of(made, name)
    made.save_pretrained(tmp_path / "adapter")
    internvl_bridge.merge(hf, tmp_path / "merged", adapters=[tmp_path / "adapter"])
    assert_close(logits_of(model_of(tmp_path / "merged"), name), expected)
    internvl_bridge.merge(custom, tmp_path / "custom-merged", adapters=[tmp_path / "adapter"])
    assert internvl_bridge.verify(tmp_path / "merged", tmp_path / "custom-merged").identical

    dumped = {key: tensor.clone() for key, tensor in made.state_dict().items()}
    if name.endswith("tied") and "lm_head" not in str(CONFIGS[kind]):
        dumped.pop("base_model.model.lm_head.weight", None)
    (hf / "model.safetensors").unlink()
    save_file(dumped, hf / "model.safetensors")
    (hf / "adapter_config.json").write_text((tmp_path / "adapter" / "adapter_config.json").read_text())
    internvl_bridge.merge(hf, tmp_path / "unwrapped")
    assert internvl_bridge.verify(tmp_path / "merged", tmp_path / "unwrapped").identical
    internvl_bridge.extract(hf, tmp_path / "parts")
    parts = tmp_path / "parts"
    again = peft.PeftModel.from_pretrained(model_of(parts / "base"), parts / "adapter").eval()
    assert_close(logits_of(again, name), expected)


@pytest.mark.skipif(MAJOR < 5, reason="transformers 4 has a module for each expert")
@pytest.mark.parametrize("name", ["qwen3moe-6b", "gptoss-300m"])
def test_experts_in_one_parameter_in_the_weights(name: str, tmp_path: Path):
    _, hf = bases(name, tmp_path)
    config = {"target_modules": ["q_proj"], "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
    made = adapted(hf, config)
    (hf / "model.safetensors").unlink()
    save_file({key: tensor.clone() for key, tensor in made.state_dict().items()}, hf / "model.safetensors")
    internvl_bridge.merge(hf, tmp_path / "merged", alpha=6)
    internvl_bridge.repair(tmp_path / "merged", tmp_path / "loads")
    assert_close(logits_of(model_of(tmp_path / "loads"), name), logits_of(made, name))
