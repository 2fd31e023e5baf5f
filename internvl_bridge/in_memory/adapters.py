"""Convert an adapter in memory."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from internvl_bridge.checkpoint.lora_tensors import look_at_values, made_tensor
from internvl_bridge.convert.options import wanted_format
from internvl_bridge.errors import OptionError
from internvl_bridge.in_memory.planned_tensors import StateDict, described_by, spec_of
from internvl_bridge.mapping.lora.keys import parsed_key
from internvl_bridge.metadata.adapter_config import checked_config
from internvl_bridge.metadata.json_files import JsonFile
from internvl_bridge.planning.adapter_plan import AdapterTarget, plan_adapter


def convert_adapter_state_dict(
    tensors: StateDict,
    adapter_config: Mapping[str, Any],
    direction: Literal["to-hf", "to-custom"],
    *,
    config: Mapping[str, Any],
    transformers: Literal[4, 5] = 5,
    target_base: str | None = None,
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Convert the tensors and the config of a LoRA adapter in memory.

    Factors are renamed, their rows are split, and those of modules that the target fuses become blocks of one. No
    value is rounded: what could only be said with rounding is refused.

    Args:
        tensors: The adapter, as PEFT's ``get_peft_model_state_dict`` gives it, or as its file holds it.
        adapter_config: The contents of its adapter_config.json.
        direction: "to-hf" or "to-custom".
        config: The contents of config.json of its base model, of either format.
        transformers: The major version that the HF adapter is for: 4 and 5 hold experts in two ways.
        target_base: The path of the base model in the other format, for adapter_config.json.

    Returns:
        The tensors, with PEFT's keys, and the contents of adapter_config.json.

    Raises:
        OptionError: An argument cannot be used.
        TensorError: A tensor does not fit the base model.
        UnsupportedModelError: The other format cannot say exactly what the adapter does.

    Example:
        >>> import json
        >>> from pathlib import Path
        >>> from safetensors.torch import load_file
        >>> import internvl_bridge
        >>> adapter = load_file("my-lora/adapter_model.safetensors")

        >>> adapter_config = json.loads(Path("my-lora/adapter_config.json").read_text())
        >>> config = json.loads(Path("InternVL3_5-8B/config.json").read_text())

        >>> tensors, made = internvl_bridge.convert_adapter_state_dict(adapter, adapter_config, "to-hf", config=config)
        >>> made["target_modules"][0]
        'lm_head'
    """
    wanted = wanted_format(direction)
    if transformers not in {4, 5}:
        raise OptionError(f"{transformers!r} is not a choice for transformers.", "Use 4 or 5.")
    specs = {key: spec_of(tensor) for key, tensor in tensors.items()}
    names = {parsed_key(key).name: None for key in tensors}
    base = described_by(config, {f"{name}.weight": spec for name in names for spec in list(specs.values())[:1]})
    checked = checked_config(JsonFile(Path("adapter_config"), "", adapter_config))
    tensor_of = tensors.__getitem__
    look = partial(look_at_values, tensor_of=tensor_of, ranks={})
    plan = plan_adapter(specs, checked, base, AdapterTarget(wanted.other, wanted, transformers, target_base), look)
    made = {key: made_tensor(key, plan, tensor_of) for key in sorted(plan.packed.keys)}
    return _apart(made), dict(plan.config)


def _apart(made: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``made`` without tensors that share memory, which safetensors does not save: an A can belong to several B."""
    seen: set[int] = set()
    for key, tensor in made.items():
        if id(tensor) in seen:
            made[key] = tensor.clone()
        seen.add(id(tensor))
    return made
