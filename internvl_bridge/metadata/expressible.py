"""What one format can say and the other cannot: refused, as the result would be fluent and wrong."""

from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.mapping.families import INTERNLM3, Family
from internvl_bridge.metadata.config_file import Config

HF_VISION_CONSTANTS = {
    "model_type": "internvl_vision",
    "use_absolute_position_embeddings": True,
    "use_mask_token": False,
    "use_mean_pooling": True,
}
HF_CONSTANTS = {
    "architectures": ["InternVLForConditionalGeneration"],
    "model_type": "internvl",
    "projector_hidden_act": "gelu",
    "vision_feature_select_strategy": "default",
}


def check_expressible(config: Config) -> None:
    """Raise UnsupportedModelError for what the classes of the other format cannot express."""
    if "llm_config" in config:
        _check_custom(config)
    else:
        _check_hf(config)


def check_biases(text_config: Config, family: Family) -> None:
    """Raise UnsupportedModelError for an InternLM3 (``text_config``: its description) that is no Llama.

    InternLM3 has one flag for q, k and v and another for everything else; HF's Llama draws the line
    behind the output projection.
    """
    biases = [text_config.get(name, False) for name in ("attention_bias", "mlp_bias")]
    if family.architecture == INTERNLM3.architecture and biases[0] != biases[1]:
        raise UnsupportedModelError(
            "config.json describes an InternLM3 whose qkv_bias and bias differ, which HF's Llama cannot.",
            "This model cannot be converted.",
        )


def _check_custom(custom: Config) -> None:
    _one_layer(custom, "select_layer")
    version = custom.get("ps_version", "v1")
    if version != "v2":
        raise UnsupportedModelError(
            f"config.json has ps_version {version!r}{'' if 'ps_version' in custom else ' (by default)'}: the "
            f"pixel shuffle of v1 transposes the token grid, and transformers has no equivalent, so the "
            f"converted model would answer fluently and wrongly.",
            "Only ps_version 'v2' can be converted.",
        )


def _check_hf(hf: Config) -> None:
    vision = hf.get("vision_config", {})
    for holder, constants in ((hf, HF_CONSTANTS), (vision, HF_VISION_CONSTANTS)):
        for name, value in constants.items():
            if name != "architectures" and holder.get(name, value) != value:
                raise UnsupportedModelError(
                    f"config.json has {name} {holder[name]!r}; the custom format knows only {value!r}.",
                    "This model cannot be expressed in the custom format.",
                )
    _one_layer(hf, "vision_feature_layer")


def _one_layer(config: Config, name: str) -> None:
    if not isinstance(config.get(name, -1), int):
        raise UnsupportedModelError(
            f"config.json has {name} {config[name]!r}; the custom format takes one layer.",
            "This model cannot be converted.",
        )
