"""The converter that one writes in an afternoon: ``plain.py SOURCE OUTPUT``.

Loads each shard of a custom checkpoint (InternViT-300M and Qwen3) with safetensors, renames and splits its tensors with
torch, and saves it: the yardstick that convert.py compares with. Checks nothing, and writes weights only.
"""

import re
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

_RENAMES = (
    (r"^language_model\.lm_head", "language_model.lm_head"),
    (r"^mlp1\.0\.", "multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "multi_modal_projector.linear_2."),
    (r"^vision_model\.embeddings\.class_embedding", "vision_tower.embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding", "vision_tower.embeddings.position_embeddings"),
    (r"^vision_model\.embeddings\.patch_embedding", "vision_tower.embeddings.patch_embeddings.projection"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.attn\.proj", r"vision_tower.encoder.layer.\1.attention.projection_layer"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.attn\.", r"vision_tower.encoder.layer.\1.attention."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.norm1", r"vision_tower.encoder.layer.\1.layernorm_before"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.norm2", r"vision_tower.encoder.layer.\1.layernorm_after"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.ls(\d)", r"vision_tower.encoder.layer.\1.lambda_\2"),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"vision_tower.encoder.layer.\1."),
)


def renamed(key: str) -> str:
    """The HF name of a custom key."""
    for pattern, replacement in _RENAMES:
        if re.match(pattern, key):
            return re.sub(pattern, replacement, key)
    return key


def converted(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of one shard in the HF format."""
    result: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        if ".attn.qkv." in key:
            for role, part in zip("qkv", tensor.chunk(3), strict=True):
                result[renamed(key.replace("qkv", f"{role}_proj"))] = part.contiguous()
        else:
            result[renamed(key)] = tensor
    return result


def main() -> None:
    """Convert shard by shard."""
    source, output = Path(sys.argv[1]), Path(sys.argv[2])
    output.mkdir()
    for path in sorted(source.glob("*.safetensors")):
        save_file(converted(load_file(path)), output / path.name, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
