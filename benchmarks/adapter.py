"""Write a LoRA adapter for every linear layer of a custom checkpoint: ``adapter.py SOURCE OUTPUT``.

Its factors are random, in float32, of rank 16.
"""

import json
import re
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_RANK = 16
_LINEAR = re.compile(r".*\.(qkv|proj|fc1|fc2|\w+_proj|1|3)\.weight")


def main(source: Path, output: Path) -> None:
    """Read the shapes from the headers of ``source``, and write the adapter."""
    factors: dict[str, torch.Tensor] = {}
    for path in sorted(source.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118 (it is not a dict)
                shape = file.get_slice(key).get_shape()
                if len(shape) == 2 and _LINEAR.fullmatch(key):
                    module = f"base_model.model.{key.removesuffix('.weight')}"
                    factors[f"{module}.lora_A.weight"] = torch.randn(_RANK, shape[1]) * 0.01
                    factors[f"{module}.lora_B.weight"] = torch.randn(shape[0], _RANK) * 0.01
    output.mkdir()
    save_file(factors, output / "adapter_model.safetensors", metadata={"format": "pt"})
    modules = sorted({key.removeprefix("base_model.model.").partition(".lora_")[0] for key in factors})
    config = {"peft_type": "LORA", "r": _RANK, "lora_alpha": 2 * _RANK, "target_modules": modules}
    config |= {"base_model_name_or_path": str(source), "bias": "none", "auto_mapping": None}
    (output / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
