"""Random adapters, and what PEFT makes of an adapter: its changes of the weights, computed here and not by the package.

Factors are small whole numbers, so that sums and products are exact in any order.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from state_dicts import Tensors, custom_of, hf_of

P = "base_model.model."
STACKED = ("gate_up_proj", "down_proj")
Config = dict[str, Any]


def lora_config(**fields: Any) -> Config:
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": "base",
        "auto_mapping": {"base_model_class": "X", "parent_library": "x"},
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
        "exclude_modules": "x",
        "modules_to_save": None,
        "bias": "none",
        "lora_dropout": 0.1,
        **fields,
    }


def whole(*shape: int) -> torch.Tensor:
    """Random whole numbers without zero, so that no column of a factor is zero."""
    return (torch.randint(1, 4, shape) * (torch.randint(0, 2, shape) * 2 - 1)).float()


def is_linear(key: str, tensor: torch.Tensor) -> bool:
    names = ("embed", "experts.gate_up", "experts.down", ".class_", ".cls_")
    return key.endswith(".weight") and tensor.ndim == 2 and not any(name in key for name in names)


def random_adapter(
    weights: Mapping[str, torch.Tensor],
    choose: Callable[[str], bool] = lambda _: True,
    rank_of: Callable[[str], int] = lambda _: 2,
) -> Tensors:
    """Factors of every linear layer of ``weights`` that is chosen."""
    tensors: Tensors = {}
    for key, weight in weights.items():
        if is_linear(key, weight) and choose(key):
            module, rank = key.removesuffix(".weight"), rank_of(key)
            tensors[f"{P}{module}.lora_A.weight"] = whole(rank, weight.shape[1])
            tensors[f"{P}{module}.lora_B.weight"] = whole(weight.shape[0], rank)
    return tensors


def weights_of(name: str, spelling: str) -> Tensors:
    """The tensors of a stored model: "custom", or HF's as transformers 4 or 5 has them in its modules."""
    if spelling == "custom":
        return custom_of(name)
    if spelling == "l1":
        return hf_of(name, "l1", "split")
    return hf_of(name, "l2", "fused" if spelling == "5" and name == "qwen3moe-6b" else "split")


def changes(tensors: Tensors, config: Config, weights: Tensors, *, transposed: bool = False) -> Tensors:
    """What an adapter adds to each of ``weights``, as PEFT computes it; zeros for those that it leaves alone.

    ``transposed``: PEFT takes experts in one parameter as matrices of inputs times outputs.
    """
    result = {key: torch.zeros(weight.shape) for key, weight in weights.items()}
    for key, a in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        b = tensors[key.replace("lora_A", "lora_B")]
        module = key.removeprefix(P).removesuffix(".lora_A.weight")
        if f"{module}.weight" in weights:
            scale = scaling(module, a.shape[0], config)
            result[f"{module}.weight"] = (scale * (b @ a.flatten(1)) if a.ndim == 2 else conv(scale, a, b)).view(
                weights[f"{module}.weight"].shape
            )
            continue
        depth = module.count(".base_layer")
        module = module.replace(".base_layer", "")
        named = [p for p in STACKED if any(f"{module}.{p}".endswith(t) for t in config["target_parameters"])]
        parameter = f"{module}.{named[len(named) - 1 - depth]}"
        experts = weights[parameter].shape[0]
        rank = a.shape[0] // experts
        scale = scaling(parameter, rank, config)
        first, second = a.view(experts, rank, -1), b.view(b.shape[0], rank, experts)
        form = "ore,eri->eio" if transposed else "ore,eri->eoi"
        result[parameter] = scale * torch.einsum(form, second, first)
    return result


def conv(scale: float, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return scale * (b.flatten(1) @ a.flatten(1))


def scaling(module: str, rank: int, config: Config) -> float:
    def first(patterns: Mapping[str, Any], usual: Any) -> Any:
        return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), usual)

    assert first(config.get("rank_pattern") or {}, config["r"]) == rank
    alpha = first(config.get("alpha_pattern") or {}, config["lora_alpha"])
    return float(alpha / rank**0.5 if config.get("use_rslora") else alpha / rank)


def check_targets(tensors: Tensors, config: Config) -> None:
    """Check that the config of a converted adapter names every module in full, and no other."""
    modules = {key.removeprefix(P).partition(".lora_")[0] for key in tensors if ".lora_" in key}
    dense = {module for module in modules if ".experts.base_layer" not in module and not module.endswith(".experts")}
    assert config["target_modules"] == sorted(dense)
    assert config["exclude_modules"] is None
