"""Checkpoints for the engines: stored ones with a tower of four layers, as llama.cpp maps no shallower one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import copy_custom, edit_json, rewrite

import internvl_bridge

Checkpoints = Callable[[str], Path]
NAMES = ("qwen2-300m", "qwen3-300m", "qwen3moe-6b", "internlm2-300m", "llama-6b", "gptoss-300m", "phi3-300m")


def deepen(tensors: dict[str, torch.Tensor]) -> None:
    """Give the tower its two layers a second time."""
    for key in [key for key in tensors if key.startswith("vision_model.encoder.layers.")]:
        prefix, number, rest = key[: len("vision_model.encoder.layers.")], *key.split(".", 4)[3:]
        tensors[f"{prefix}{int(number) + 2}.{rest}"] = tensors[key].clone()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The directory that holds a checkpoint as ``custom``, converted as ``hf`` and again as ``back``."""
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            root = tmp_path_factory.mktemp(name)
            source = copy_custom(name, root / "custom")
            rewrite(source, deepen)
            edit_json(source / "config.json", lambda config: config["vision_config"].update(num_hidden_layers=4))
            internvl_bridge.to_hf(source, root / "hf")
            internvl_bridge.to_custom(root / "hf", root / "back")
            made[name] = root
        return made[name]

    return directory
