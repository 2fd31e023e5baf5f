"""Make a synthetic InternVL checkpoint in the custom format, of any size, with random weights.

    python examples/synthetic.py OUTPUT --preset tiny

It is a real directory as far as converters and loaders care: shards, index, config.json, and a
tokenizer that knows the nine image tokens (and no language). Presets:

* ``tiny``: a megabyte
* ``1b``: the tensor shapes of InternVL3_5-1B, 2 GB
* ``8b``: those of InternVL3_5-8B with 24 of its 36 layers, 12 GB
* ``241b``: the shapes and the depth of InternVL3_5-241B-A28B, as sparse files (headers without data)
* ``many``: as many tensors, but tiny ones
"""

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tower:
    """An InternViT: ``big`` is the 6B kind (RMS norms, q/k norms, no qkv bias)."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    image_size: int
    big: bool

    def config(self) -> dict[str, object]:
        """The ``vision_config`` of config.json."""
        return {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "image_size": self.image_size,
            "patch_size": 14,
            "norm_type": "rms_norm" if self.big else "layer_norm",
            "qkv_bias": not self.big,
            "qk_normalization": self.big,
        }

    def tensors(self) -> Iterator[tuple[str, Shape]]:
        """Key and shape of every tensor."""
        width, embeddings = self.hidden, "vision_model.embeddings"
        yield f"{embeddings}.class_embedding", (1, 1, width)
        yield f"{embeddings}.position_embedding", (1, (self.image_size // 14) ** 2 + 1, width)
        yield f"{embeddings}.patch_embedding.weight", (width, 3, 14, 14)
        yield f"{embeddings}.patch_embedding.bias", (width,)
        for layer in range(self.layers):
            block = f"vision_model.encoder.layers.{layer}"
            vectors = ["ls1", "ls2", "norm1.weight", "norm2.weight", "attn.proj.bias", "mlp.fc2.bias"]
            vectors += ["attn.q_norm.weight", "attn.k_norm.weight"] if self.big else ["norm1.bias", "norm2.bias"]
            yield from ((f"{block}.{name}", (width,)) for name in vectors)
            yield f"{block}.attn.qkv.weight", (3 * width, width)
            if not self.big:
                yield f"{block}.attn.qkv.bias", (3 * width,)
            yield f"{block}.attn.proj.weight", (width, width)
            yield f"{block}.mlp.fc1.weight", (self.intermediate, width)
            yield f"{block}.mlp.fc1.bias", (self.intermediate,)
            yield f"{block}.mlp.fc2.weight", (width, self.intermediate)


@dataclass(frozen=True)
class Qwen3:
    """A Qwen3 language model; with ``experts``, a Qwen3-MoE whose experts are ``expert_width`` wide."""

    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    experts: int = 0
    expert_width: int = 0

    def config(self) -> dict[str, object]:
        """The ``llm_config`` of config.json."""
        dense: dict[str, object] = {
            "architectures": ["Qwen3MoeForCausalLM" if self.experts else "Qwen3ForCausalLM"],
            "model_type": "qwen3_moe" if self.experts else "qwen3",
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "attention_bias": False,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            "tie_word_embeddings": False,
        }
        moe: dict[str, object] = {
            "num_experts": self.experts,
            "num_experts_per_tok": min(8, self.experts),
            "moe_intermediate_size": self.expert_width,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "norm_topk_prob": True,
        }
        return dense | moe if self.experts else dense

    def tensors(self) -> Iterator[tuple[str, Shape]]:
        """Key and shape of every tensor."""
        yield "language_model.lm_head.weight", (self.vocab, self.hidden)
        yield "language_model.model.embed_tokens.weight", (self.vocab, self.hidden)
        yield "language_model.model.norm.weight", (self.hidden,)
        for layer in range(self.layers):
            block = f"language_model.model.layers.{layer}"
            yield f"{block}.input_layernorm.weight", (self.hidden,)
            yield f"{block}.post_attention_layernorm.weight", (self.hidden,)
            yield f"{block}.self_attn.q_norm.weight", (self.head_dim,)
            yield f"{block}.self_attn.k_norm.weight", (self.head_dim,)
            queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
            for role, rows in (("q", queries), ("k", keys), ("v", keys)):
                yield f"{block}.self_attn.{role}_proj.weight", (rows, self.hidden)
            yield f"{block}.self_attn.o_proj.weight", (self.hidden, queries)
            if self.experts:
                yield f"{block}.mlp.gate.weight", (self.experts, self.hidden)
            for expert in range(self.experts):
                yield from self._mlp(f"{block}.mlp.experts.{expert}", self.expert_width)
            if not self.experts:
                yield from self._mlp(f"{block}.mlp", self.intermediate)

    def _mlp(self, block: str, width: int) -> Iterator[tuple[str, Shape]]:
        yield f"{block}.gate_proj.weight", (width, self.hidden)
        yield f"{block}.up_proj.weight", (width, self.hidden)
        yield f"{block}.down_proj.weight", (self.hidden, width)


@dataclass(frozen=True)
class Preset:
    """A model, and the bytes of data after which a new shard begins."""

    tower: Tower
    language: Qwen3
    shard_bytes: int
    sparse: bool = False

    def tensors(self) -> dict[str, Shape]:
        """Key and shape of every tensor of the whole model, sorted by key."""
        wide, hidden = 4 * self.tower.hidden, self.language.hidden
        projector = {
            "mlp1.0.weight": (wide,),
            "mlp1.0.bias": (wide,),
            "mlp1.1.weight": (hidden, wide),
            "mlp1.1.bias": (hidden,),
            "mlp1.3.weight": (hidden, hidden),
            "mlp1.3.bias": (hidden,),
        }
        return dict(sorted([*projector.items(), *self.tower.tensors(), *self.language.tensors()]))


PRESETS: Mapping[str, Preset] = {
    "tiny": Preset(Tower(64, 128, 3, 4, 56, big=False), Qwen3(640, 96, 160, 3, 6, 2, 24), shard_bytes=400_000),
    "1b": Preset(
        Tower(1024, 4096, 24, 16, 448, big=False),
        Qwen3(151936, 1024, 3072, 28, 16, 8, 128),
        shard_bytes=5_000_000_000,
    ),
    "8b": Preset(
        Tower(1024, 4096, 24, 16, 448, big=False),
        Qwen3(151936, 4096, 12288, 24, 32, 8, 128),
        shard_bytes=5_000_000_000,
    ),
    "241b": Preset(
        Tower(3200, 12800, 45, 25, 448, big=True),
        Qwen3(151936, 4096, 12288, 94, 64, 4, 128, experts=128, expert_width=1536),
        shard_bytes=5_000_000_000,
        sparse=True,
    ),
    "many": Preset(
        Tower(64, 128, 45, 4, 56, big=True),
        Qwen3(640, 64, 96, 94, 4, 2, 16, experts=128, expert_width=32),
        shard_bytes=2_000_000,
    ),
}
_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"),
)
_SPARE_EMBEDDINGS = 4


def make(directory: Path, preset: Preset) -> None:
    """Write the checkpoint; ``directory`` must not exist."""
    directory.mkdir(parents=True)
    shards: list[dict[str, Shape]] = [{}]
    size = 0
    for key, shape in preset.tensors().items():
        if size and size + 2 * prod(shape) > preset.shard_bytes:
            shards.append({})
            size = 0
        shards[-1][key] = shape
        size += 2 * prod(shape)
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_shard(directory / name, shard, sparse=preset.sparse)
    weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    total = sum(2 * prod(shape) for shard in shards for shape in shard.values())
    _write_json(
        directory / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )
    _write_json(directory / "config.json", _config(preset))
    first = preset.language.vocab - _SPARE_EMBEDDINGS - len(_TOKENS)
    _write_tokenizer(directory, {token: first + n for n, token in enumerate(_TOKENS)})
    _write_json(directory / "generation_config.json", {"eos_token_id": first})


def _write_shard(path: Path, tensors: Mapping[str, Shape], *, sparse: bool) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for key, shape in tensors.items():
        end = position + 2 * prod(shape)
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, end]}
        position = end
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("xb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        if sparse:
            file.truncate(8 + len(raw) + position)
            return
        while position:
            chunk = min(position, 1 << 24)
            file.write(_random_bf16(chunk))
            position -= chunk


def _random_bf16(size: int) -> bytes:
    """Random bf16 numbers of a magnitude that weights have: the high byte is fixed to 0x3c or 0xbc."""
    data = bytearray(os.urandom(size))
    data[1::2] = bytes(0x3C | (byte & 0x80) for byte in data[1::2]) if size < 1 << 20 else b"\x3c" * (size // 2)
    return bytes(data)


def _config(preset: Preset) -> dict[str, object]:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": "internvl2_5",
        "ps_version": "v2",
        "select_layer": -1,
        "downsample_ratio": 0.5,
        "force_image_size": preset.tower.image_size,
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "min_dynamic_patch": 1,
        "max_dynamic_patch": 12,
        "torch_dtype": "bfloat16",
        "vision_config": preset.tower.config(),
        "llm_config": preset.language.config(),
    }


def _write_tokenizer(directory: Path, tokens: Mapping[str, int]) -> None:
    _write_json(directory / "added_tokens.json", tokens)
    added = [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for token, number in tokens.items()
    ]
    first = min(tokens.values())
    vocabulary = {chr(33 + n) if n < 94 else f"token{n}": n for n in range(first)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "!"}
    parts: dict[str, object] = dict.fromkeys(
        ("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")
    )
    _write_json(directory / "tokenizer.json", {"version": "1.0", **parts, "added_tokens": added, "model": model})
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    _write_json(directory / "tokenizer_config.json", words)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Parse the command line and make one checkpoint."""
    parser = argparse.ArgumentParser(description="Make a synthetic InternVL checkpoint with random weights.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="tiny")
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} exists: choose another directory")
    make(arguments.output, PRESETS[arguments.preset])
    print(f"Made {arguments.output} ({len(PRESETS[arguments.preset].tensors())} tensors)")


if __name__ == "__main__":
    main()
