"""Checkpoints whose adapter is not merged, as trainers save them: made here by PEFT's names, not by the package."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from adapters import P, whole
from safetensors.torch import load_file, save_file
from state_dicts import Tensors

LINEAR = re.compile(r".*\.(qkv|proj|fc1|fc2|wqkv|wo|w1|w2|w3|\w+_proj)\.(weight|bias)")
HALVES = ("vision_model", "language_model")


def wrapped_by_trainer(weights: Mapping[str, torch.Tensor], ranks: Mapping[str, int]) -> Tensors:
    """The state dict of InternVL's own trainer: each half of the model is a PeftModel, if it has a rank."""
    made: Tensors = {}
    for key, weight in weights.items():
        half, _, rest = key.partition(".")
        if half not in ranks:
            made[key] = weight
            continue
        name = f"{half}.base_model.model.{rest}"
        if not LINEAR.fullmatch(rest):
            made[name] = weight
            continue
        module, _, end = name.rpartition(".")
        made[f"{module}.base_layer.{end}"] = weight
        if end == "weight":
            made[f"{module}.lora_A.default.weight"] = whole(ranks[half], weight.shape[1]) / 64
            made[f"{module}.lora_B.default.weight"] = whole(weight.shape[0], ranks[half]) / 64
    return made


def save_as_trainer(plain: Path, output: Path, ranks: Mapping[str, int] = dict.fromkeys(HALVES, 2)) -> Tensors:
    """Write ``plain``, a custom checkpoint in one file, as the trainer does; the factors, by the keys of an adapter."""
    shutil.copytree(plain, output)
    made = wrapped_by_trainer(load_file(plain / "model.safetensors"), ranks)
    save_file(made, output / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((output / "config.json").read_text())
    config |= {"use_backbone_lora": ranks.get(HALVES[0], 0), "use_llm_lora": ranks.get(HALVES[1], 0)}
    (output / "config.json").write_text(json.dumps(config, indent=2))
    return factors_in(made)


def factors_in(state_dict: Mapping[str, torch.Tensor]) -> Tensors:
    """The factors of a wrapped state dict, by the keys of an adapter."""
    factors = {key: tensor for key, tensor in state_dict.items() if ".lora_" in key}
    return {P + key.replace("base_model.model.", "").replace(".default", ""): t for key, t in factors.items()}
