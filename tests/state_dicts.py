"""The stored models as state dicts in every spelling, made by hand here and not by the package."""

import json
from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from support import DATA, NAMES, load_all, same_bits

import internvl_bridge

Tensors = dict[str, torch.Tensor]

LAYOUTS = ("l1", "l2", "l3")
MOE = "qwen3moe-6b"
SPELLED = [(name, layout, "split") for name in NAMES for layout in LAYOUTS] + [
    (MOE, layout, "fused") for layout in LAYOUTS
]
"""Every stored model in every spelling that HF keys can have."""
NEEDS_CONFIG = [name for name in NAMES if name.startswith("internlm2")]
TIED = "qwen3-300m-tied"
HEAD, EMBEDDINGS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"

_WORDS = (
    ("vision_model.encoder.layers.", "vision_tower.encoder.layer."),
    ("vision_model.", "vision_tower."),
    (".class_embedding", ".cls_token"),
    (".position_embedding", ".position_embeddings"),
    (".patch_embedding.", ".patch_embeddings.projection."),
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.proj.", ".attention.projection_layer."),
    (".attn.", ".attention."),
    (".ls1", ".lambda_1"),
    (".ls2", ".lambda_2"),
    ("mlp1.0.", "multi_modal_projector.layer_norm."),
    ("mlp1.1.", "multi_modal_projector.linear_1."),
    ("mlp1.3.", "multi_modal_projector.linear_2."),
    (".tok_embeddings.", ".embed_tokens."),
    ("language_model.output.", "language_model.lm_head."),
    (".attention.wo.", ".self_attn.o_proj."),
    (".feed_forward.w1.", ".mlp.gate_proj."),
    (".feed_forward.w3.", ".mlp.up_proj."),
    (".feed_forward.w2.", ".mlp.down_proj."),
    (".attention_norm.", ".input_layernorm."),
    (".ffn_norm.", ".post_attention_layernorm."),
)
_PREFIXES = {
    "l1": {},
    "l2": {
        "language_model.lm_head.": "lm_head.",
        "language_model.model.": "model.language_model.",
        "vision_tower.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    },
    "l3": {
        "language_model.model.": "model.language_model.model.",
        "vision_tower.": "model.vision_tower.",
        "multi_modal_projector.": "model.multi_modal_projector.",
    },
}


@dataclass(frozen=True)
class Group:
    """Tensors that have to be converted together, as both formats have them."""

    custom: Tensors
    hf: Tensors

    def sources(self, direction: str) -> Tensors:
        return self.custom if direction == "to-hf" else self.hf

    def targets(self, direction: str) -> Tensors:
        return self.hf if direction == "to-hf" else self.custom


@cache
def _stored(name: str) -> tuple[dict[str, Any], Tensors]:
    directory = DATA / "custom" / name
    return json.loads((directory / "config.json").read_text()), load_all(directory)


def config_of(name: str) -> dict[str, Any]:
    return deepcopy(_stored(name)[0])


def custom_of(name: str) -> Tensors:
    return dict(_stored(name)[1])


def hf_of(name: str, layout: str = "l1", experts: str = "split") -> Tensors:
    return {key: tensor for group in groups_of(name, layout, experts) for key, tensor in group.hf.items()}


def spelled(key: str, layout: str) -> str:
    """The HF ``key``, spelled as L1, in another layout."""
    for old, new in _PREFIXES[layout].items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


@cache
def groups_of(name: str, layout: str = "l1", experts: str = "split") -> list[Group]:
    config, tensors = _stored(name)
    fused: dict[str, Tensors] = {}
    groups = []
    for key, tensor in tensors.items():
        if experts == "fused" and ".mlp.experts." in key and name == MOE:
            layer, rest = key.split(".mlp.experts.")
            role = "down_proj" if ".down_proj." in rest else "gate_up_proj"
            fused.setdefault(f"{layer}.mlp.experts.{role}", {})[key] = tensor
        else:
            groups.append(Group({key: tensor}, _parts(key, tensor, config["llm_config"])))
    groups += [Group(parts, {key: _stacked(parts, config["llm_config"])}) for key, parts in fused.items()]
    return [Group(group.custom, {spelled(key, layout): part for key, part in group.hf.items()}) for group in groups]


def _parts(key: str, tensor: torch.Tensor, llm: Mapping[str, Any]) -> Tensors:
    if ".attn.qkv." in key:
        return {
            _renamed(key).replace(".qkv.", f".{role}_proj."): part
            for role, part in zip("qkv", tensor.chunk(3), strict=True)
        }
    if ".attention.wqkv." in key:
        heads, groups = llm["num_attention_heads"], llm["num_key_value_heads"]
        size, wide = llm["hidden_size"] // heads, tensor.shape[1:]
        whole = tensor.view(groups, heads // groups + 2, size, *wide)
        parts = (whole[:, :-2].reshape(-1, *wide), whole[:, -2].reshape(-1, *wide), whole[:, -1].reshape(-1, *wide))
        return {
            key.replace("attention.wqkv", f"self_attn.{role}_proj"): part
            for role, part in zip("qkv", parts, strict=True)
        }
    return {_renamed(key): tensor}


def _renamed(key: str) -> str:
    for old, new in _WORDS:
        key = key.replace(old, new)
    return key


def _stacked(parts: Tensors, llm: Mapping[str, Any]) -> torch.Tensor:
    def of(expert: int, role: str) -> list[torch.Tensor]:
        return [part for key, part in parts.items() if f".experts.{expert}.{role}_proj." in key]

    return torch.stack([torch.cat([*of(e, "gate"), *of(e, "up"), *of(e, "down")]) for e in range(llm["num_experts"])])


def assert_same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> None:
    assert left.keys() == right.keys()
    assert [key for key in left if not same_bits(left[key], right[key])] == []


def streamed(pairs: Iterable[tuple[str, torch.Tensor]], direction: str, **options: Any) -> Tensors:
    """What ``iter_converted`` makes of a generator of ``pairs``, none of it twice."""

    def generated() -> Iterator[tuple[str, torch.Tensor]]:
        yield from pairs

    made: Tensors = {}
    for key, tensor in internvl_bridge.iter_converted(generated(), direction, **options):
        assert key not in made
        made[key] = tensor
    return made


def converted(tensors: Tensors, direction: str, **options: Any) -> Tensors:
    """What ``convert_state_dict`` makes of ``tensors``, and ``iter_converted`` in two orders as well."""
    whole = internvl_bridge.convert_state_dict(tensors, direction, **options)
    for pairs in (tensors.items(), reversed(tensors.items())):
        made = streamed(pairs, direction, **options)
        assert made.keys() == whole.keys()
        for key, tensor in made.items():
            assert tensor.is_meta is whole[key].is_meta
            assert (tensor.dtype, tensor.shape) == (whole[key].dtype, whole[key].shape)
            assert tensor.is_meta or same_bits(tensor, whole[key])
    return whole
