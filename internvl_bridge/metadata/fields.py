"""The fields of config.json that both formats have: names, kinds of values, and defaults."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from internvl_bridge.metadata import kinds
from internvl_bridge.metadata.kinds import Kind, optional
from internvl_bridge.metadata.rope import canonical_scaling, typed_scaling

ABSENT: Any = object()
"""The value of a field that is not there; both formats' classes then use the same default."""


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Field:
    """One quantity: its name in each format, its kind, what its absence means, how its value is spelled.

    ``to_custom(to_hf(value))`` means what ``value`` means.
    """

    custom: str
    hf: str
    kind: Kind
    custom_default: Any = ABSENT
    hf_default: Any = ABSENT
    to_hf: Callable[[Any], Any] = _unchanged
    to_custom: Callable[[Any], Any] = _unchanged


def same(kind: Kind, *names: str) -> tuple[Field, ...]:
    """Fields of one kind with one name and the same default in both formats."""
    return tuple(Field(name, name, kind) for name in names)


def pair_of_sides(side: Any) -> list[Any]:
    """Both sides of a square, however it is stated."""
    sides = side if isinstance(side, list) else [side]
    return [sides[0], sides[-1]]


def _side(pair: Any) -> Any:
    return pair[0] if isinstance(pair, list) else pair


# Defaults: the custom class describes the 6B tower (hidden 3200), the HF class the 300M one.
VISION_FIELDS = (
    Field("hidden_size", "hidden_size", kinds.positive, 3200, 1024),
    Field("intermediate_size", "intermediate_size", kinds.positive, 12800, 4096),
    Field("num_hidden_layers", "num_hidden_layers", kinds.positive, 48, 24),
    Field("num_attention_heads", "num_attention_heads", kinds.positive, 25, 16),
    Field("num_channels", "num_channels", kinds.positive, 3, 3),
    Field("hidden_act", "hidden_act", kinds.activation, "gelu", "gelu"),
    Field("initializer_range", "initializer_range", kinds.number, 0.02, 0.02),
    Field("layer_norm_eps", "layer_norm_eps", kinds.positive_number, 1e-6, 1e-6),
    Field("norm_type", "norm_type", kinds.word, "rms_norm", "layer_norm"),
    Field("qkv_bias", "attention_bias", kinds.flag, False, False),
    Field("qk_normalization", "use_qk_norm", kinds.flag, True, False),
    Field("attention_dropout", "attention_dropout", kinds.number, 0.0, 0.0),
    Field("dropout", "hidden_dropout_prob", kinds.number, 0.0, 0.0),
    Field("image_size", "image_size", kinds.square, 224, [448, 448], pair_of_sides, _side),
    Field("patch_size", "patch_size", kinds.square, 14, [14, 14], pair_of_sides, _side),
)

TOP_FIELDS = (
    Field("downsample_ratio", "downsample_ratio", kinds.ratio, 0.5, 0.5),
    Field("select_layer", "vision_feature_layer", kinds.index, -1, -1),
)

ROPE_FIELDS = ("rope_theta", "rope_scaling", "partial_rotary_factor")
"""What describes rotary embeddings in an HF config of transformers 4."""


def _anything(_: Any) -> bool:
    return True  # rope_scaling has a module of its own, which refuses what it does not understand


def _rope(
    custom_type_key: str, custom_type_names: dict[str, str], scaling: Any = None, base: float = 10_000.0
) -> tuple[Field, ...]:
    """Rotary embeddings; the custom class reads the kind of scaling under ``custom_type_key``.

    ``scaling`` and ``base`` are what it means, in both formats, that nothing is stated.
    """

    def to_custom(canonical: Any) -> Any:
        return typed_scaling(canonical, custom_type_key, custom_type_names)

    return (
        Field("rope_theta", "rope_theta", kinds.positive_number, base, base),
        *same(optional(kinds.positive_number), "partial_rotary_factor"),
        Field("rope_scaling", "rope_scaling", _anything, scaling, scaling, canonical_scaling, to_custom),
    )


# Classes of transformers 4.37 and remote code read "type"; those that came later read "rope_type".
_OLD_ROPE, _NEW_ROPE = _rope("type", {}), _rope("rope_type", {})

_COMMON = (
    *same(
        kinds.positive,
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    ),
    *same(optional(kinds.positive), "num_key_value_heads"),
    *same(kinds.activation, "hidden_act"),
    *same(kinds.number, "initializer_range", "attention_dropout"),
    *same(kinds.positive_number, "rms_norm_eps"),
    *same(optional(kinds.flag), "use_cache"),
    *same(optional(kinds.token_ids), "bos_token_id", "eos_token_id", "pad_token_id"),
)
_SLIDING = (
    *same(optional(kinds.positive), "sliding_window"),
    *same(optional(kinds.flag), "use_sliding_window"),
    *same(optional(kinds.index), "max_window_layers"),
    *same(optional(kinds.words), "layer_types"),
)
_ROUTER = (
    *same(kinds.positive, "num_experts_per_tok"),
    *same(kinds.flag, "output_router_logits"),
    *same(kinds.number, "router_aux_loss_coef"),
)
_HEAD_DIM = same(optional(kinds.positive), "head_dim")
_HEADS = (*_HEAD_DIM, *same(kinds.flag, "attention_bias"))

_BY_HF_CLASS = {
    "qwen2": _COMMON + _OLD_ROPE + _SLIDING + _HEAD_DIM,
    "qwen3": _COMMON + _NEW_ROPE + _SLIDING + _HEADS,
    "qwen3_moe": (
        *_COMMON,
        *_NEW_ROPE,
        *_SLIDING,
        *_HEADS,
        *_ROUTER,
        *same(kinds.positive, "num_experts", "moe_intermediate_size", "decoder_sparse_step"),
        *same(optional(kinds.indices), "mlp_only_layers"),
        *same(kinds.flag, "norm_topk_prob"),
    ),
    "llama": (
        *_COMMON,
        *_OLD_ROPE,
        *_HEADS,
        *same(kinds.flag, "mlp_bias"),
        *same(optional(kinds.index), "pretraining_tp"),
    ),
    "phi3": (
        *_COMMON,
        *_HEAD_DIM,
        *_rope("type", {"longrope": "su"}),  # Phi-3's own class calls it so; transformers knows both
        *same(kinds.number, "resid_pdrop", "embd_pdrop"),
        *same(optional(kinds.positive), "original_max_position_embeddings", "sliding_window"),
    ),
    "gpt_oss": (
        *_COMMON,
        *_rope("rope_type", {}, scaling=ABSENT, base=150_000.0),  # the only class that scales unasked
        *_HEADS,
        *_ROUTER,
        *same(kinds.positive, "num_local_experts"),
        *same(optional(kinds.positive), "sliding_window"),
        *same(optional(kinds.words), "layer_types"),
        *same(kinds.number, "swiglu_alpha", "swiglu_limit"),
    ),
}
# InternLM's own classes spell biases their own way, and InternLM2's never states head_dim.
_BY_CUSTOM_CLASS = {
    "InternLM2ForCausalLM": (
        *_COMMON,
        *_OLD_ROPE,
        Field("bias", "attention_bias", kinds.flag, True, False),
    ),
    "InternLM3ForCausalLM": (
        *_COMMON,
        *_OLD_ROPE,
        *_HEAD_DIM,
        Field("qkv_bias", "attention_bias", kinds.flag, False, False),
        Field("bias", "mlp_bias", kinds.flag, False, False),
    ),
}


def text_fields(architecture: str, hf_model_type: str) -> tuple[Field, ...]:
    """The fields of the language model whose custom class and HF type are given."""
    return _BY_CUSTOM_CLASS.get(architecture, _BY_HF_CLASS[hf_model_type])
