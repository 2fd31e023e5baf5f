"""Read the dimensions of a model from its config, in HF terms."""

from typing import Any

from internvl_bridge.errors import ConfigError, shown
from internvl_bridge.mapping import value_checks
from internvl_bridge.mapping.config_fields import ExpertFields
from internvl_bridge.mapping.dimensions import ExpertDims, ModelDims, TextDims, VisionDims
from internvl_bridge.mapping.families import Family
from internvl_bridge.metadata.json_files import Config


def model_dims(hf: Config, family: Family) -> ModelDims:
    """Dimensions of the model of ``family`` that ``hf``, an HF config in the old spelling, describes.

    Raises ConfigError if a number that decides about a tensor is missing or senseless.
    """
    vision = _vision(hf["vision_config"])
    ratio = hf.get("downsample_ratio", 0.5)
    if not value_checks.ratio(ratio):
        raise _senseless("downsample_ratio", ratio)
    shuffled = int(1 / ratio) ** 2
    _check_grid(vision, int(1 / ratio))
    return ModelDims(vision, _text(hf["text_config"], family), shuffled)


def _check_grid(vision: VisionDims, factor: int) -> None:
    side = vision.image_size // vision.patch_size
    if side % factor:
        raise ConfigError(
            f"config.json has image_size {vision.image_size} and patch_size {vision.patch_size}: {side} by {side} "
            f"patches, which downsample_ratio cannot join {factor} by {factor}. No class can run such a model.",
            "Use the config.json that the checkpoint was saved with.",
        )


def _vision(vision: Config) -> VisionDims:
    norm = vision["norm_type"]
    if norm not in ("layer_norm", "rms_norm"):
        raise _senseless("vision_config.norm_type", norm)
    hidden, heads = _whole(vision, "hidden_size"), _whole(vision, "num_attention_heads")
    if hidden % heads:
        raise _senseless("vision_config.num_attention_heads", heads)
    return VisionDims(
        hidden=hidden,
        intermediate=_whole(vision, "intermediate_size"),
        layers=_whole(vision, "num_hidden_layers"),
        heads=heads,
        channels=_whole(vision, "num_channels"),
        image_size=_first(vision, "image_size"),
        patch_size=_first(vision, "patch_size"),
        layer_norm=norm == "layer_norm",
        qkv_bias=bool(vision["attention_bias"]),
        qk_norm=bool(vision["use_qk_norm"]),
    )


def _text(text: Config, family: Family) -> TextDims:
    heads, hidden = _whole(text, "num_attention_heads"), _whole(text, "hidden_size")
    kv_heads = _whole(text, "num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise ConfigError(
            f"config.json has {heads} attention heads and {kv_heads} key-value heads, which do not divide.",
            "Use the config.json that the checkpoint was saved with.",
        )
    return TextDims(
        vocab=_whole(text, "vocab_size"),
        hidden=hidden,
        intermediate=_whole(text, "intermediate_size"),
        layers=_whole(text, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_whole(text, "head_dim", default=family.head_dim or hidden // heads),
        attention_bias=bool(text.get("attention_bias", family.attention_bias)),
        mlp_bias=bool(text.get("mlp_bias", False)),
        experts=_experts(text, family.experts),
    )


def _experts(text: Config, names: ExpertFields | None) -> ExpertDims | None:
    if names is None:
        return None
    dense = (text.get(names.dense_layers) or []) if names.dense_layers else []
    if not value_checks.indices(dense):
        raise _senseless(str(names.dense_layers), dense)
    return ExpertDims(
        _whole(text, names.count),
        _whole(text, names.intermediate),
        _whole(text, names.step, default=1) if names.step else 1,
        frozenset(dense),
    )


def _whole(section: Config, name: str, default: int | None = None) -> int:
    value = section.get(name)
    value = default if value is None else value
    if not isinstance(value, int) or not value_checks.positive(value):
        raise _senseless(name, value)
    return value


def _first(section: Config, name: str) -> int:
    value = section[name]
    return _whole({name: value[0] if isinstance(value, list) and value else value}, name)


def _senseless(name: str, value: Any) -> ConfigError:
    return ConfigError(
        f"config.json has {name} {shown(value)}, from which no tensor shape follows.",
        "Use the config.json that the checkpoint was saved with.",
    )
