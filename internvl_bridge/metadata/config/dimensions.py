"""Read the dimensions of a model from its config, in HF terms."""

from typing import Any

from internvl_bridge.errors import ConfigError, shown
from internvl_bridge.mapping.dimensions import ExpertDims, ModelDims, TextDims, VisionDims
from internvl_bridge.metadata.config import value_checks
from internvl_bridge.metadata.config.file import Config

_HEAD_DIM = {"qwen3": 128, "gpt_oss": 64}
_ATTENTION_BIAS = {"gpt_oss": True}


def model_dims(hf: Config) -> ModelDims:
    """Dimensions of the model that ``hf``, an HF config in the old spelling, describes.

    Raises ConfigError if a number that decides about a tensor is missing or senseless.
    """
    vision = _vision(hf["vision_config"])
    ratio = hf.get("downsample_ratio", 0.5)
    if not value_checks.ratio(ratio):
        raise _senseless("downsample_ratio", ratio)
    shuffled = int(1 / ratio) ** 2
    return ModelDims(vision, _text(hf["text_config"]), shuffled)


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


def _text(text: Config) -> TextDims:
    model_type = text["model_type"]
    heads, hidden = _whole(text, "num_attention_heads"), _whole(text, "hidden_size")
    kv_heads = _whole(text, "num_key_value_heads", default=heads)
    if heads % kv_heads:
        raise ConfigError(
            f"config.json has {heads} attention heads and {kv_heads} key-value heads, which do not divide.",
            "Use the config.json that the checkpoint was saved with.",
        )
    return TextDims(
        model_type=model_type,
        vocab=_whole(text, "vocab_size"),
        hidden=hidden,
        intermediate=_whole(text, "intermediate_size"),
        layers=_whole(text, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=_whole(text, "head_dim", default=_HEAD_DIM.get(model_type, hidden // heads)),
        attention_bias=bool(text.get("attention_bias", _ATTENTION_BIAS.get(model_type, False))),
        mlp_bias=bool(text.get("mlp_bias", False)),
        experts=_experts(text),
    )


def _experts(text: Config) -> ExpertDims | None:
    match text["model_type"]:
        case "gpt_oss":
            count, intermediate = _whole(text, "num_local_experts"), _whole(text, "intermediate_size")
            return ExpertDims(count, intermediate, 1, frozenset())
        case "qwen3_moe":
            dense = text.get("mlp_only_layers") or []
            if not value_checks.indices(dense):
                raise _senseless("mlp_only_layers", dense)
            return ExpertDims(
                _whole(text, "num_experts"),
                _whole(text, "moe_intermediate_size"),
                _whole(text, "decoder_sparse_step", default=1),
                frozenset(dense),
            )
        case _:
            return None


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
