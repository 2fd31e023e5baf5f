"""The fields of config.json that both formats have, under which names and with which defaults."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from internvl_bridge.errors import ConfigError
from internvl_bridge.metadata.rope import canonical_scaling, old_style_scaling

ABSENT = object()
"""The value of a field that is not there; both formats' classes then use the same default."""


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Field:
    """One quantity, its name in each format, what its absence means there, and how its value is spelled.

    ``to_custom(to_hf(value))`` means what ``value`` means.
    """

    custom: str
    hf: str
    custom_default: Any = ABSENT
    hf_default: Any = ABSENT
    to_hf: Callable[[Any], Any] = _unchanged
    to_custom: Callable[[Any], Any] = _unchanged


def same(*names: str) -> tuple[Field, ...]:
    """Fields with one name, and the same default in both formats."""
    return tuple(Field(name, name) for name in names)


def _pair(side: Any) -> Any:
    return [side, side] if isinstance(side, int) else side


def _side(pair: Any) -> Any:
    match pair:
        case int(side) | [int(side)]:
            return side
        case [int(height), int(width)] if height == width:
            return height
    raise ConfigError(
        f"config.json has the image or patch size {pair!r}; the custom format knows only squares.",
        "A tower with other sizes cannot be converted.",
    )


# Defaults: the custom class describes the 6B tower (hidden 3200), the HF class the 300M one.
VISION_FIELDS = (
    Field("hidden_size", "hidden_size", 3200, 1024),
    Field("intermediate_size", "intermediate_size", 12800, 4096),
    Field("num_hidden_layers", "num_hidden_layers", 48, 24),
    Field("num_attention_heads", "num_attention_heads", 25, 16),
    Field("num_channels", "num_channels", 3, 3),
    Field("hidden_act", "hidden_act", "gelu", "gelu"),
    Field("initializer_range", "initializer_range", 0.02, 0.02),
    Field("layer_norm_eps", "layer_norm_eps", 1e-6, 1e-6),
    Field("norm_type", "norm_type", "rms_norm", "layer_norm"),
    Field("qkv_bias", "attention_bias", False, False),
    Field("qk_normalization", "use_qk_norm", True, False),
    Field("attention_dropout", "attention_dropout", 0.0, 0.0),
    Field("dropout", "hidden_dropout_prob", 0.0, 0.0),
    Field("image_size", "image_size", 224, [448, 448], _pair, _side),
    Field("patch_size", "patch_size", 14, [14, 14], _pair, _side),
)

TOP_FIELDS = (
    Field("downsample_ratio", "downsample_ratio", 0.5, 0.5),
    Field("select_layer", "vision_feature_layer", -1, -1),
)

_ROPE = (
    *same("rope_theta", "partial_rotary_factor"),
    Field("rope_scaling", "rope_scaling", None, None, canonical_scaling, old_style_scaling),
)
ROPE_FIELDS = frozenset(field.hf for field in _ROPE)
"""What describes rotary embeddings in an HF config of transformers 4."""

_COMMON = (
    *same(
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "hidden_act",
        "max_position_embeddings",
        "initializer_range",
        "rms_norm_eps",
        "use_cache",
        "attention_dropout",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
    ),
    *_ROPE,
)
_SLIDING = same("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")
_ROUTER = same("num_experts_per_tok", "output_router_logits", "router_aux_loss_coef")
_HEADS = same("head_dim", "attention_bias")

_BY_HF_CLASS = {
    "qwen2": _COMMON + _SLIDING,
    "qwen3": _COMMON + _SLIDING + _HEADS,
    "qwen3_moe": _COMMON
    + _SLIDING
    + _HEADS
    + _ROUTER
    + same(
        "num_experts", "moe_intermediate_size", "decoder_sparse_step", "mlp_only_layers", "norm_topk_prob"
    ),
    "llama": _COMMON + _HEADS + same("mlp_bias", "pretraining_tp"),
    "phi3": _COMMON + same("resid_pdrop", "embd_pdrop", "original_max_position_embeddings", "sliding_window"),
    "gpt_oss": _COMMON
    + _HEADS
    + _ROUTER
    + same("num_local_experts", "sliding_window", "layer_types", "swiglu_alpha", "swiglu_limit"),
}
# InternLM's own classes spell biases their own way and never state head_dim.
_BY_CUSTOM_CLASS = {
    "InternLM2ForCausalLM": (*_COMMON, Field("bias", "attention_bias", True, False)),
    "InternLM3ForCausalLM": (
        *_COMMON,
        *same("head_dim"),
        Field("qkv_bias", "attention_bias", False, False),
        Field("bias", "mlp_bias", False, False),
    ),
}


def text_fields(architecture: str, hf_model_type: str) -> tuple[Field, ...]:
    """The fields of the language model whose custom class and HF type are given."""
    return _BY_CUSTOM_CLASS.get(architecture, _BY_HF_CLASS[hf_model_type])
