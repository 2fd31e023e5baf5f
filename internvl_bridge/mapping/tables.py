"""The tables: every tensor of every InternVL model, custom name beside HF name (spelled as L1).

The vision tower and projector are one table for both towers: which rows a model uses follows from its config.json.
Each language model has a table of its own, made of the blocks below; most keep their names.
"""

from collections.abc import Callable

from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.patterns import KeyPattern
from internvl_bridge.mapping.qkv_layouts import GroupedQKV, Layout, Thirds
from internvl_bridge.mapping.transforms import Fuse, Rename, Stack, Transform

Table = tuple[Transform, ...]


def rename(custom: str, hf: str) -> Rename:
    """A row of a table: one tensor, two names."""
    return Rename(KeyPattern(custom), KeyPattern(hf))


def keep(*keys: str) -> Table:
    """Rows for tensors that have the same name on both sides."""
    return tuple(rename(key, key) for key in keys)


def fuse(custom: str, parts: dict[str, str], layout: Layout) -> Fuse:
    """A row for a tensor that the custom format fuses."""
    return Fuse(KeyPattern(custom), {role: KeyPattern(part) for role, part in parts.items()}, layout)


def stack(stacked: str, parts: tuple[str, ...], experts: int | None) -> Stack:
    """A row for tensors of experts that the HF format can stack."""
    return Stack(tuple(map(KeyPattern, parts)), KeyPattern(stacked), experts)


_CUSTOM_VIT, _HF_VIT = "vision_model.encoder.layers.{layer}", "vision_tower.encoder.layer.{layer}"

VISION_AND_PROJECTOR: Table = (
    rename("vision_model.embeddings.class_embedding", "vision_tower.embeddings.cls_token"),
    rename("vision_model.embeddings.position_embedding", "vision_tower.embeddings.position_embeddings"),
    rename(
        "vision_model.embeddings.patch_embedding.{param}",
        "vision_tower.embeddings.patch_embeddings.projection.{param}",
    ),
    rename(f"{_CUSTOM_VIT}.norm1.{{param}}", f"{_HF_VIT}.layernorm_before.{{param}}"),
    rename(f"{_CUSTOM_VIT}.norm2.{{param}}", f"{_HF_VIT}.layernorm_after.{{param}}"),
    fuse(
        f"{_CUSTOM_VIT}.attn.qkv.{{param}}",
        {role: f"{_HF_VIT}.attention.{role}_proj.{{param}}" for role in "qkv"},
        Thirds(),
    ),
    rename(f"{_CUSTOM_VIT}.attn.{{qk}}_norm.weight", f"{_HF_VIT}.attention.{{qk}}_norm.weight"),
    rename(f"{_CUSTOM_VIT}.attn.proj.{{param}}", f"{_HF_VIT}.attention.projection_layer.{{param}}"),
    rename(f"{_CUSTOM_VIT}.mlp.{{fc}}.{{param}}", f"{_HF_VIT}.mlp.{{fc}}.{{param}}"),
    rename(f"{_CUSTOM_VIT}.ls1", f"{_HF_VIT}.lambda_1"),
    rename(f"{_CUSTOM_VIT}.ls2", f"{_HF_VIT}.lambda_2"),
    rename("mlp1.0.{param}", "multi_modal_projector.layer_norm.{param}"),
    rename("mlp1.1.{param}", "multi_modal_projector.linear_1.{param}"),
    rename("mlp1.3.{param}", "multi_modal_projector.linear_2.{param}"),
)

_LM, _LAYER = "language_model", "language_model.model.layers.{layer}"

_FRAME: Table = keep(
    f"{_LM}.model.embed_tokens.weight",
    f"{_LM}.model.norm.weight",
    f"{_LM}.lm_head.weight",
    f"{_LAYER}.{{norm}}.weight",
)
ATTENTION: Table = keep(f"{_LAYER}.self_attn.{{qkvo}}_proj.{{linear}}")
QK_NORM: Table = keep(f"{_LAYER}.self_attn.{{qk}}_norm.weight")
MLP: Table = keep(f"{_LAYER}.mlp.{{mlp}}_proj.{{linear}}")
FUSED_EXPERTS = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
"""How keys of fused experts end, in any layout."""

ROUTER: Table = keep(f"{_LAYER}.mlp.gate.weight")
_EXPERT = f"{_LAYER}.mlp.experts.{{expert}}"
SPLIT_EXPERTS: Table = keep(f"{_EXPERT}.{{mlp}}_proj.{{linear}}")


def fused_experts(count: int | None) -> Table:
    """Rows for HF keys that hold all ``count`` experts of a layer in one tensor (None: as many as there are)."""
    gate, up, down = (f"{_EXPERT}.{role}_proj.weight" for role in ("gate", "up", "down"))
    return (
        stack(f"{_LAYER}.mlp.experts.gate_up_proj", (gate, up), count),
        stack(f"{_LAYER}.mlp.experts.down_proj", (down,), count),
    )


PHI3_LAYER: Table = keep(
    f"{_LAYER}.self_attn.qkv_proj.{{linear}}",
    f"{_LAYER}.self_attn.o_proj.{{linear}}",
    f"{_LAYER}.mlp.gate_up_proj.{{linear}}",
    f"{_LAYER}.mlp.down_proj.{{linear}}",
)
GPT_OSS_LAYER: Table = keep(
    f"{_LAYER}.self_attn.sinks",
    f"{_LAYER}.mlp.router.{{param}}",
    f"{_LAYER}.mlp.experts.{{experts}}_proj",
    f"{_LAYER}.mlp.experts.{{experts}}_proj_{{mx}}",
)


def same_names(*tables: Table) -> Callable[[TextDims], Table]:
    """The table of a language model that has its HF names in the custom format, too."""
    table = sum(tables, _FRAME)
    return lambda _: table


def internlm2(dims: TextDims) -> Table:
    """The table of InternLM2, whose custom class has names of its own and fuses q, k and v."""
    grouped = GroupedQKV(dims.heads, dims.kv_heads, dims.head_dim)
    return (
        rename(f"{_LM}.model.tok_embeddings.weight", f"{_LM}.model.embed_tokens.weight"),
        rename(f"{_LM}.model.norm.weight", f"{_LM}.model.norm.weight"),
        rename(f"{_LM}.output.weight", f"{_LM}.lm_head.weight"),
        rename(f"{_LAYER}.attention_norm.weight", f"{_LAYER}.input_layernorm.weight"),
        rename(f"{_LAYER}.ffn_norm.weight", f"{_LAYER}.post_attention_layernorm.weight"),
        fuse(
            f"{_LAYER}.attention.wqkv.{{param}}",
            {role: f"{_LAYER}.self_attn.{role}_proj.{{param}}" for role in "qkv"},
            grouped,
        ),
        rename(f"{_LAYER}.attention.wo.{{param}}", f"{_LAYER}.self_attn.o_proj.{{param}}"),
        rename(f"{_LAYER}.feed_forward.w1.{{param}}", f"{_LAYER}.mlp.gate_proj.{{param}}"),
        rename(f"{_LAYER}.feed_forward.w3.{{param}}", f"{_LAYER}.mlp.up_proj.{{param}}"),
        rename(f"{_LAYER}.feed_forward.w2.{{param}}", f"{_LAYER}.mlp.down_proj.{{param}}"),
    )
