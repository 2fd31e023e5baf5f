"""The fields of config.json that both formats have, but for those of the language model: see its family."""

from typing import Any

from internvl_bridge.mapping import value_checks
from internvl_bridge.mapping.config_fields import Field


def pair_of_sides(side: Any) -> list[Any]:
    """Both sides of a square, however it is stated."""
    sides = side if isinstance(side, list) else [side]
    return [sides[0], sides[-1]]


def side_of(pair: Any) -> Any:
    """One side of a square, however it is stated."""
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
    Field("image_size", "image_size", value_checks.square, 224, [448, 448], pair_of_sides, side_of),
    Field("patch_size", "patch_size", value_checks.square, 14, [14, 14], pair_of_sides, side_of),
)

TOP_FIELDS = (
    Field("downsample_ratio", "downsample_ratio", value_checks.ratio, 0.5, 0.5),
    Field("select_layer", "vision_feature_layer", value_checks.index, -1, -1),
)

ROPE_FIELDS = ("rope_theta", "rope_scaling", "partial_rotary_factor")
"""What describes rotary embeddings in an HF config of transformers 4."""
