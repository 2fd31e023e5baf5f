"""What one format can say and the other cannot: refused, as the result would be fluent and wrong."""

from internvl_bridge.errors import ConfigError, UnsupportedModelError, shown
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.rope_scaling import canonical_scaling
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.tiling import custom_tiling

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


def check_expressible(model: ModelDescription) -> None:
    """Raise UnsupportedModelError for what the classes of the other format cannot express.

    Raises ConfigError for what those of neither can.
    """
    if model.format is Format.CUSTOM:
        _check_pixel_shuffle(model)
        _check_tiling(model)
    else:
        _check_constants(model)
    _check_layer(model)
    _check_layer_types(model)
    _check_biases(model)
    _check_head_size(model)
    _check_scaling(model)


def _check_pixel_shuffle(custom: ModelDescription) -> None:
    version = custom.values.get("ps_version", "v1")
    if version != "v2":
        stated = "" if "ps_version" in custom.values else " (by default)"
        raise UnsupportedModelError(
            f"{custom.file.path} has ps_version {shown(version)}{stated}: the pixel shuffle of v1 transposes the token "
            f"grid. For the same pixels transformers has no equivalent, and the converted model would answer fluently "
            f"and wrongly.",
            "Use a release with ps_version v2. InternVL-Chat-V1-1, V1-2 and V1-2-Plus have v1.",
        )


def _check_constants(hf: ModelDescription) -> None:
    for holder, constants in ((hf.values, HF_CONSTANTS), (hf.vision, HF_VISION_CONSTANTS)):
        for name, value in constants.items():
            if name != "architectures" and holder.get(name, value) != value:
                raise UnsupportedModelError(
                    f"{hf.file.path} has {name} {shown(holder[name])}; the custom format knows only {value!r}.",
                    "This model cannot be expressed in the custom format.",
                )


def _check_layer(model: ModelDescription) -> None:
    name = "select_layer" if model.format is Format.CUSTOM else "vision_feature_layer"
    layer, layers = model.values.get(name, -1), model.dims.vision.layers
    if not -layers - 1 <= layer <= layers:
        raise UnsupportedModelError(
            f"{model.file.path} has {name} {layer}, but the vision tower has {layers} layers.",
            "Use the config.json that the checkpoint was saved with.",
        )


def _check_layer_types(model: ModelDescription) -> None:
    types, layers = model.text.get("layer_types"), model.dims.text.layers
    if types is not None and len(types) != layers:
        raise ConfigError(
            f"{model.file.path} has {len(types)} layer_types, but the language model has {layers} layers.",
            "Correct layer_types or num_hidden_layers.",
        )


def _check_tiling(custom: ModelDescription) -> None:
    tiling = custom_tiling(custom.values)
    if tiling.smallest > tiling.largest:
        raise ConfigError(
            f"{custom.file.path} has min_dynamic_patch {tiling.smallest}, but max_dynamic_patch {tiling.largest}.",
            "Use the config.json that the checkpoint was saved with.",
        )


def _check_biases(model: ModelDescription) -> None:
    """InternLM3 has one flag for q, k and v and one for all else; Llama's line is behind the output projection."""
    text = model.dims.text
    if model.family.has_one_bias_flag and text.attention_bias != text.mlp_bias:
        raise UnsupportedModelError(
            f"{model.file.path} describes an {model.family.name} whose qkv_bias and bias differ, which "
            f"HF's Llama cannot.",
            "This model cannot be converted.",
        )


def _check_head_size(model: ModelDescription) -> None:
    """InternLM2's class computes the size of a head; HF's Llama can state another one."""
    text = model.dims.text
    if model.family.computes_head_dim and text.head_dim != text.hidden // text.heads:
        raise UnsupportedModelError(
            f"{model.file.path} has head_dim {text.head_dim}, but the heads of {model.family.name} "
            f"have {text.hidden // text.heads}.",
            "Convert it without sidecar and --reference: then its language model stays a Llama.",
        )


def _check_scaling(model: ModelDescription) -> None:
    """Transformers 4 and 5 must both be able to load the scaling of rotary embeddings."""
    scaling = canonical_scaling(model.text.get("rope_scaling"))
    if scaling is None:
        return
    longrope = scaling["rope_type"] == "longrope"
    if model.family.rope.original_length_on_top:
        fits = longrope and scaling.keys() == {"rope_type", "short_factor", "long_factor"}
    else:
        fits = not longrope or "factor" in scaling
    if not fits:
        raise UnsupportedModelError(
            f"{model.file.path} has rope_scaling {shown(scaling)}, which HF's {model.family.name} cannot load.",
            "Phi-3 knows only longrope with short_factor and long_factor; with other models longrope needs a factor.",
        )
