"""The tables: every tensor of every InternVL family, custom name beside HF name (spelled as L1).

The vision tower and projector are one table for both towers: which rows a model uses follows from
its config.json. Each language model has a table of its own; most keep their names.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

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


class Experts(Enum):
    """How HF keys hold the experts of a family whose custom format has one tensor per expert."""

    SPLIT = "split"
    FUSED = "fused"


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
_ATTENTION: Table = keep(f"{_LAYER}.self_attn.{{qkvo}}_proj.{{param}}")
_QK_NORM: Table = keep(f"{_LAYER}.self_attn.{{qk}}_norm.weight")
_MLP: Table = keep(f"{_LAYER}.mlp.{{mlp}}_proj.{{param}}")
FUSED_EXPERTS = (".mlp.experts.gate_up_proj", ".mlp.experts.down_proj")
"""How keys of fused experts end, in any layout."""

_ROUTER: Table = keep(f"{_LAYER}.mlp.gate.weight")
_EXPERT = f"{_LAYER}.mlp.experts.{{expert}}"
_SPLIT_EXPERTS: Table = keep(f"{_EXPERT}.{{mlp}}_proj.weight")


def _fused_experts(count: int | None) -> Table:
    gate, up, down = (f"{_EXPERT}.{role}_proj.weight" for role in ("gate", "up", "down"))
    return (
        stack(f"{_LAYER}.mlp.experts.gate_up_proj", (gate, up), count),
        stack(f"{_LAYER}.mlp.experts.down_proj", (down,), count),
    )


_PHI3_LAYER: Table = keep(
    f"{_LAYER}.self_attn.qkv_proj.weight",
    f"{_LAYER}.self_attn.o_proj.weight",
    f"{_LAYER}.mlp.gate_up_proj.weight",
    f"{_LAYER}.mlp.down_proj.weight",
)
_GPT_OSS_LAYER: Table = keep(
    f"{_LAYER}.self_attn.sinks",
    f"{_LAYER}.mlp.router.{{param}}",
    f"{_LAYER}.mlp.experts.{{experts}}_proj",
    f"{_LAYER}.mlp.experts.{{experts}}_proj_{{mx}}",
)


def _same_names(*tables: Table) -> Callable[[TextDims], Table]:
    table = sum(tables, _FRAME)
    return lambda _: table


def _internlm2(dims: TextDims) -> Table:
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


@dataclass(frozen=True, slots=True)
class Family:
    """A language model that InternVL has been released with.

    ``architecture`` is the class that custom ``llm_config.architectures`` names; ``hf_model_type`` is
    HF's ``text_config.model_type``; ``language_table`` gives the rows for a model of given dimensions, but for
    experts that HF keys hold in two ways.
    """

    name: str
    architecture: str
    hf_model_type: str
    language_table: Callable[[TextDims], Table]
    split_experts: Table = ()
    fused_experts: Callable[[int | None], Table] = lambda _: ()

    def table(self, dims: TextDims, experts: Experts = Experts.SPLIT) -> Table:
        """All rows: language model, vision tower and projector."""
        count = dims.experts.experts if dims.experts else None
        return self.language_table(dims) + self.expert_rows(experts, count) + VISION_AND_PROJECTOR

    @property
    def expert_choices(self) -> tuple[Experts, ...]:
        """The ways in which HF keys hold its experts; one, if there is no choice."""
        return tuple(Experts) if self.split_experts else (Experts.SPLIT,)

    def expert_rows(self, experts: Experts, count: int | None) -> Table:
        """The rows of ``count`` experts, where HF keys hold them in two ways; none in most families."""
        return self.fused_experts(count) if experts is Experts.FUSED else self.split_experts


QWEN2 = Family("Qwen2", "Qwen2ForCausalLM", "qwen2", _same_names(_ATTENTION, _MLP))
QWEN3 = Family("Qwen3", "Qwen3ForCausalLM", "qwen3", _same_names(_ATTENTION, _QK_NORM, _MLP))
QWEN3_MOE = Family(
    "Qwen3-MoE",
    "Qwen3MoeForCausalLM",
    "qwen3_moe",
    _same_names(_ATTENTION, _QK_NORM, _MLP, _ROUTER),
    _SPLIT_EXPERTS,
    _fused_experts,
)
LLAMA = Family("Llama", "LlamaForCausalLM", "llama", _same_names(_ATTENTION, _MLP))
INTERNLM2 = Family("InternLM2", "InternLM2ForCausalLM", "llama", _internlm2)
INTERNLM3 = Family("InternLM3", "InternLM3ForCausalLM", "llama", _same_names(_ATTENTION, _MLP))
INTERNLM3_GROUPED = Family("InternLM3 (wqkv)", "InternLM3ForCausalLM", "llama", _internlm2)
PHI3 = Family("Phi-3", "Phi3ForCausalLM", "phi3", _same_names(_PHI3_LAYER))
GPT_OSS = Family("GPT-OSS", "GptOssForCausalLM", "gpt_oss", _same_names(_ATTENTION, _GPT_OSS_LAYER))

FAMILIES = (QWEN2, QWEN3, QWEN3_MOE, LLAMA, INTERNLM2, INTERNLM3, INTERNLM3_GROUPED, PHI3, GPT_OSS)
