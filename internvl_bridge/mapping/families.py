"""The families: all that is known of each language model that InternVL has been released with, in one place.

A new one of known shape is one more :class:`Family` in :data:`FAMILIES`, and nothing else. One of a new shape also
needs its rows (:mod:`internvl_bridge.mapping.tables`) and its layer (:mod:`internvl_bridge.mapping.layer_shapes`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from internvl_bridge.mapping import tables
from internvl_bridge.mapping.config_fields import (
    COMMON,
    HEAD_DIM,
    HEADS,
    ROUTER,
    SLIDING,
    ExpertFields,
    Field,
    rope_fields,
    same,
)
from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.layer_shapes import (
    LayerShapes,
    gpt_oss_layer,
    gpt_oss_mxfp4_layer,
    llama_layer,
    phi3_layer,
    qwen2_layer,
    qwen3_layer,
)
from internvl_bridge.mapping.rope_scaling import RopeReader
from internvl_bridge.mapping.tables import Table
from internvl_bridge.mapping.value_checks import flag, index, indices, number, optional, positive, words


class Experts(Enum):
    """How HF keys hold the experts of a family whose custom format has one tensor per expert."""

    SPLIT = "split"
    FUSED = "fused"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """A language model that InternVL has been released with, and all in which it differs from the others.

    Everything without a default must be stated: a family that is incomplete is an error when this module is imported.

    Args:
        name: what people call it; sidecars record it.
        architecture: the class that custom ``llm_config.architectures`` names.
        hf_model_type: HF's ``text_config.model_type``. Several families can have one type. Then an HF checkpoint
            is taken for the first in :data:`FAMILIES`, unless a sidecar or a reference says otherwise.
        repository: a hub repository of upstream whose modules build this language model, in every size.
        language_table: the rows for a model of given dimensions, but for experts that HF keys hold in two ways.
        layer: names and shapes of the tensors of one layer, in HF names.
        fields: the fields of its config, in the order in which they are written.
        rope: how its classes read rotary embeddings.
        template: the conversation template of its current releases.
        chatml_template: the name of a template that its older releases use, of several that render the same.
        key_mark: a part of some custom keys; it distinguishes this family from another one of the same architecture.
        experts: the fields that describe its experts, None if it has none.
        split_experts: rows for experts that HF keys hold one tensor each.
        fused_experts: the same for HF keys that hold all experts of a layer in one tensor, given their number.
        mxfp4_layer: as ``layer``, with experts in 4-bit blocks.
        head_dim: the size of a head where its HF config states none; None for the hidden size by the heads.
        attention_bias: whether q, k and v have a bias where its HF config does not say so.
        computes_head_dim: its custom class takes the hidden size by the heads, whatever is stated.
        has_one_bias_flag: its HF class has one flag for biases that its custom class states one by one.
    """

    name: str
    architecture: str
    hf_model_type: str
    repository: str
    language_table: Callable[[TextDims], Table]
    layer: LayerShapes
    fields: tuple[Field, ...]
    rope: RopeReader
    template: str = "internvl2_5"
    chatml_template: str = "Hermes-2"
    key_mark: str | None = None
    experts: ExpertFields | None = None
    split_experts: Table = ()
    fused_experts: Callable[[int | None], Table] = lambda _: ()
    mxfp4_layer: LayerShapes | None = None
    head_dim: int | None = None
    attention_bias: bool = False
    computes_head_dim: bool = False
    has_one_bias_flag: bool = False

    @property
    def expert_choices(self) -> tuple[Experts, ...]:
        """The ways in which HF keys hold its experts; one, if there is no choice."""
        return tuple(Experts) if self.split_experts else (Experts.SPLIT,)

    def expert_rows(self, experts: Experts, count: int | None) -> Table:
        """The rows of ``count`` experts, where HF keys hold them in two ways; none in most families."""
        return self.fused_experts(count) if experts is Experts.FUSED else self.split_experts

    def table(self, dims: TextDims, experts: Experts = Experts.SPLIT) -> Table:
        """All rows: language model, vision tower and projector."""
        count = dims.experts.experts if dims.experts else None
        return self.language_table(dims) + self.expert_rows(experts, count) + tables.VISION_AND_PROJECTOR


# Classes of transformers 4.37 and remote code read "type"; those that came later read "rope_type".
_OLD_ROPE, _NEW_ROPE = RopeReader("type"), RopeReader("rope_type")
_PHI3_ROPE = RopeReader("type", {"longrope": "su"}, hf_type_key="type", original_length_on_top=True)
_GPT_OSS_ROPE = RopeReader("rope_type", base=150_000.0, scales_by_default=True)

QWEN2 = Family(
    name="Qwen2",
    architecture="Qwen2ForCausalLM",
    hf_model_type="qwen2",
    repository="OpenGVLab/InternVL3-8B",
    language_table=tables.same_names(tables.ATTENTION, tables.MLP),
    layer=qwen2_layer,
    fields=(*COMMON, *rope_fields(_OLD_ROPE), *SLIDING, *HEAD_DIM),
    rope=_OLD_ROPE,
)
QWEN3 = Family(
    name="Qwen3",
    architecture="Qwen3ForCausalLM",
    hf_model_type="qwen3",
    repository="OpenGVLab/InternVL3_5-8B",
    language_table=tables.same_names(tables.ATTENTION, tables.QK_NORM, tables.MLP),
    layer=qwen3_layer,
    fields=(*COMMON, *rope_fields(_NEW_ROPE), *SLIDING, *HEADS),
    rope=_NEW_ROPE,
    head_dim=128,
)
QWEN3_MOE = Family(
    name="Qwen3-MoE",
    architecture="Qwen3MoeForCausalLM",
    hf_model_type="qwen3_moe",
    repository="OpenGVLab/InternVL3_5-30B-A3B",
    language_table=tables.same_names(tables.ATTENTION, tables.QK_NORM, tables.MLP, tables.ROUTER),
    layer=qwen3_layer,
    fields=(
        *COMMON,
        *rope_fields(_NEW_ROPE),
        *SLIDING,
        *HEADS,
        *ROUTER,
        *same(positive, "num_experts", "moe_intermediate_size", "decoder_sparse_step"),
        *same(optional(indices), "mlp_only_layers"),
        *same(flag, "norm_topk_prob"),
    ),
    rope=_NEW_ROPE,
    experts=ExpertFields(
        "num_experts",
        "moe_intermediate_size",
        renamed_count="num_local_experts",
        step="decoder_sparse_step",
        dense_layers="mlp_only_layers",
    ),
    split_experts=tables.SPLIT_EXPERTS,
    fused_experts=tables.fused_experts,
)
LLAMA = Family(
    name="Llama",
    architecture="LlamaForCausalLM",
    hf_model_type="llama",
    repository="OpenGVLab/InternVL2-Llama3-76B",
    language_table=tables.same_names(tables.ATTENTION, tables.MLP),
    layer=llama_layer,
    fields=(
        *COMMON,
        *rope_fields(_OLD_ROPE),
        *HEADS,
        *same(flag, "mlp_bias"),
        *same(optional(index), "pretraining_tp"),
    ),
    rope=_OLD_ROPE,
)
# InternLM's own classes spell biases their own way, and InternLM2's never states head_dim.
INTERNLM2 = Family(
    name="InternLM2",
    architecture="InternLM2ForCausalLM",
    hf_model_type="llama",
    repository="OpenGVLab/InternVL2_5-8B",
    language_table=tables.internlm2,
    layer=llama_layer,
    fields=(*COMMON, *rope_fields(_OLD_ROPE), Field("bias", "attention_bias", flag, True, False)),
    rope=_OLD_ROPE,
    chatml_template="internlm2-chat",
    computes_head_dim=True,
)
INTERNLM3 = Family(
    name="InternLM3",
    architecture="InternLM3ForCausalLM",
    hf_model_type="llama",
    repository="OpenGVLab/InternVL3-9B",
    language_table=tables.same_names(tables.ATTENTION, tables.MLP),
    layer=llama_layer,
    fields=(
        *COMMON,
        *rope_fields(_OLD_ROPE),
        *HEAD_DIM,
        Field("qkv_bias", "attention_bias", flag, False, False),
        Field("bias", "mlp_bias", flag, False, False),
    ),
    rope=_OLD_ROPE,
    has_one_bias_flag=True,
)
INTERNLM3_GROUPED = replace(
    INTERNLM3, name="InternLM3 (wqkv)", language_table=tables.internlm2, key_mark=".attention.wqkv."
)
PHI3 = Family(
    name="Phi-3",
    architecture="Phi3ForCausalLM",
    hf_model_type="phi3",
    repository="OpenGVLab/InternVL2-4B",
    language_table=tables.same_names(tables.PHI3_LAYER),
    layer=phi3_layer,
    fields=(
        *COMMON,
        *HEAD_DIM,
        *rope_fields(_PHI3_ROPE),
        *same(number, "resid_pdrop", "embd_pdrop"),
        *same(optional(positive), "original_max_position_embeddings", "sliding_window"),
    ),
    rope=_PHI3_ROPE,
    template="phi3-chat",
)
GPT_OSS = Family(
    name="GPT-OSS",
    architecture="GptOssForCausalLM",
    hf_model_type="gpt_oss",
    repository="OpenGVLab/InternVL3_5-GPT-OSS-20B-A4B-Preview",
    language_table=tables.same_names(tables.ATTENTION, tables.GPT_OSS_LAYER),
    layer=gpt_oss_layer,
    mxfp4_layer=gpt_oss_mxfp4_layer,
    fields=(
        *COMMON,
        *rope_fields(_GPT_OSS_ROPE),
        *HEADS,
        *ROUTER,
        *same(positive, "num_local_experts"),
        *same(optional(positive), "sliding_window"),
        *same(optional(words), "layer_types"),
        *same(number, "swiglu_alpha", "swiglu_limit"),
    ),
    rope=_GPT_OSS_ROPE,
    template="internvl3_5_gpt_oss",
    experts=ExpertFields("num_local_experts", "intermediate_size"),
    head_dim=64,
    attention_bias=True,
)

FAMILIES = (QWEN2, QWEN3, QWEN3_MOE, LLAMA, INTERNLM2, INTERNLM3, INTERNLM3_GROUPED, PHI3, GPT_OSS)


def families_of(architecture: str) -> list[Family]:
    """The families of a custom class; several differ in the keys that they are marked by."""
    return [family for family in FAMILIES if family.architecture == architecture]


def default_family(hf_model_type: str) -> Family | None:
    """The family that an HF text model is taken for where nothing else names one; None for an unknown type."""
    return next((family for family in FAMILIES if family.hf_model_type == hf_model_type), None)


def family_named(name: str) -> Family | None:
    """The family with this name, as a sidecar records it."""
    return next((family for family in FAMILIES if family.name == name), None)
