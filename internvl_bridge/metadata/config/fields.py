"""The fields of config.json that both formats have: names, kinds of values, and defaults."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from internvl_bridge.metadata.config import value_checks
from internvl_bridge.metadata.config.rope import canonical_scaling, typed_scaling
from internvl_bridge.metadata.config.value_checks import ValueCheck, optional

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
    kind: ValueCheck
    custom_default: Any = ABSENT
    hf_default: Any = ABSENT
    to_hf: Callable[[Any], Any] = _unchanged
    to_custom: Callable[[Any], Any] = _unchanged


def same(kind: ValueCheck, *names: str) -> tuple[Field, ...]:
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
    Field("hidden_size", "hidden_size", value_checks.positive, 3200, 1024),
    Field("intermediate_size", "intermediate_size", value_checks.positive, 12800, 4096),
    Field("num_hidden_layers", "num_hidden_layers", value_checks.positive, 48, 24),
    Field("num_attention_heads", "num_attention_heads", value_checks.positive, 25, 16),
    Field("num_channels", "num_channels", value_checks.positive, 3, 3),
    Field("hidden_act", "hidden_act", value_checks.activation, "gelu", "gelu"),
    Field("initializer_range", "initializer_range", value_checks.number, 0.02, 0.02),
    Field("layer_norm_eps", "layer_norm_eps", value_checks.positive_number, 1e-6, 1e-6),
    Field("norm_type", "norm_type", value_checks.word, "rms_norm", "layer_norm"),
    Field("qkv_bias", "attention_bias", value_checks.flag, False, False),
    Field("qk_normalization", "use_qk_norm", value_checks.flag, True, False),
    Field("attention_dropout", "attention_dropout", value_checks.number, 0.0, 0.0),
    Field("dropout", "hidden_dropout_prob", value_checks.number, 0.0, 0.0),
    Field("image_size", "image_size", value_checks.square, 224, [448, 448], pair_of_sides, _side),
    Field("patch_size", "patch_size", value_checks.square, 14, [14, 14], pair_of_sides, _side),
)

TOP_FIELDS = (
    Field("downsample_ratio", "downsample_ratio", value_checks.ratio, 0.5, 0.5),
    Field("select_layer", "vision_feature_layer", value_checks.index, -1, -1),
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
        Field("rope_theta", "rope_theta", value_checks.positive_number, base, base),
        *same(optional(value_checks.positive_number), "partial_rotary_factor"),
        Field("rope_scaling", "rope_scaling", _anything, scaling, scaling, canonical_scaling, to_custom),
    )


# Classes of transformers 4.37 and remote code read "type"; those that came later read "rope_type".
_OLD_ROPE, _NEW_ROPE = _rope("type", {}), _rope("rope_type", {})

_COMMON = (
    *same(
        value_checks.positive,
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    ),
    *same(optional(value_checks.positive), "num_key_value_heads"),
    *same(value_checks.activation, "hidden_act"),
    *same(value_checks.number, "initializer_range", "attention_dropout"),
    *same(value_checks.positive_number, "rms_norm_eps"),
    *same(optional(value_checks.flag), "use_cache"),
    *same(optional(value_checks.token_ids), "bos_token_id", "eos_token_id", "pad_token_id"),
)
_SLIDING = (
    *same(optional(value_checks.positive), "sliding_window"),
    *same(optional(value_checks.flag), "use_sliding_window"),
    *same(optional(value_checks.index), "max_window_layers"),
    *same(optional(value_checks.words), "layer_types"),
)
_ROUTER = (
    *same(value_checks.positive, "num_experts_per_tok"),
    *same(value_checks.flag, "output_router_logits"),
    *same(value_checks.number, "router_aux_loss_coef"),
)
_HEAD_DIM = same(optional(value_checks.positive), "head_dim")
_HEADS = (*_HEAD_DIM, *same(value_checks.flag, "attention_bias"))

_BY_HF_CLASS = {
    "qwen2": _COMMON + _OLD_ROPE + _SLIDING + _HEAD_DIM,
    "qwen3": _COMMON + _NEW_ROPE + _SLIDING + _HEADS,
    "qwen3_moe": (
        *_COMMON,
        *_NEW_ROPE,
        *_SLIDING,
        *_HEADS,
        *_ROUTER,
        *same(value_checks.positive, "num_experts", "moe_intermediate_size", "decoder_sparse_step"),
        *same(optional(value_checks.indices), "mlp_only_layers"),
        *same(value_checks.flag, "norm_topk_prob"),
    ),
    "llama": (
        *_COMMON,
        *_OLD_ROPE,
        *_HEADS,
        *same(value_checks.flag, "mlp_bias"),
        *same(optional(value_checks.index), "pretraining_tp"),
    ),
    "phi3": (
        *_COMMON,
        *_HEAD_DIM,
        *_rope("type", {"longrope": "su"}),  # Phi-3's own class calls it so; transformers knows both
        *same(value_checks.number, "resid_pdrop", "embd_pdrop"),
        *same(optional(value_checks.positive), "original_max_position_embeddings", "sliding_window"),
    ),
    "gpt_oss": (
        *_COMMON,
        *_rope("rope_type", {}, scaling=ABSENT, base=150_000.0),  # the only class that scales unasked
        *_HEADS,
        *_ROUTER,
        *same(value_checks.positive, "num_local_experts"),
        *same(optional(value_checks.positive), "sliding_window"),
        *same(optional(value_checks.words), "layer_types"),
        *same(value_checks.number, "swiglu_alpha", "swiglu_limit"),
    ),
}
# InternLM's own classes spell biases their own way, and InternLM2's never states head_dim.
_BY_CUSTOM_CLASS = {
    "InternLM2ForCausalLM": (
        *_COMMON,
        *_OLD_ROPE,
        Field("bias", "attention_bias", value_checks.flag, True, False),
    ),
    "InternLM3ForCausalLM": (
        *_COMMON,
        *_OLD_ROPE,
        *_HEAD_DIM,
        Field("qkv_bias", "attention_bias", value_checks.flag, False, False),
        Field("bias", "mlp_bias", value_checks.flag, False, False),
    ),
}


def text_fields(architecture: str, hf_model_type: str) -> tuple[Field, ...]:
    """The fields of the language model whose custom class and HF type are given."""
    return _BY_CUSTOM_CLASS.get(architecture, _BY_HF_CLASS[hf_model_type])
