"""Translate config.json between the formats: a lens, whose complement is the config of the way there.

Each function takes an ``old`` config of the target format (from a sidecar or a reference model).
What the source says wins; wherever the old config already means the same, and for everything that
the source's format cannot say, the old config stays as it is. So going back restores it exactly.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from math import isqrt
from typing import Any

from internvl_bridge.errors import ConfigError, UnsupportedModelError
from internvl_bridge.mapping.families import Family
from internvl_bridge.metadata.config_file import Config
from internvl_bridge.metadata.expressible import HF_CONSTANTS, HF_VISION_CONSTANTS
from internvl_bridge.metadata.fields import ABSENT, ROPE_FIELDS, TOP_FIELDS, VISION_FIELDS, Field, text_fields
from internvl_bridge.metadata.rope import in_old_spelling, old_style_scaling

# What the custom format says and HF's config cannot; upstream's current releases all say this.
_CUSTOM_ASSUMPTIONS: dict[str, Any] = {
    "dynamic_image_size": True,
    "use_thumbnail": True,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 12,
}
_TEMPLATES = {"phi3": "phi3-chat", "gpt_oss": "internvl3_5_gpt_oss"}
_DEFAULT_TEMPLATE = "internvl2_5"
_MXFP4 = {"quant_method": "mxfp4"}


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What the tensors themselves say, which no config can overrule.

    ``tied``: there is no output head, the input embeddings serve. ``mxfp4``: experts are stored in
    4-bit blocks. ``dtype``: the torch name of the weights' dtype, for configs that name none.
    """

    tied: bool
    mxfp4: bool
    dtype: str


def to_hf_config(
    custom: Config, family: Family, tensors: TensorFacts, image_token_id: int, old: Config | None
) -> dict[str, Any]:
    """The HF config.json for a custom one, readable by every transformers from 4.52 on."""
    result: dict[str, Any] = deepcopy(dict(old or {}))
    fresh = in_old_hf_spelling(result)
    _set(result, fresh, HF_CONSTANTS, HF_CONSTANTS)
    _set(result, fresh, {"image_token_id": image_token_id}, {"image_token_id": 151667})
    _set(result, fresh, _translated(custom, TOP_FIELDS), _hf_defaults(TOP_FIELDS))
    _set(result, fresh, {"image_seq_length": tokens_per_tile(custom)}, {"image_seq_length": 256})
    _set(result, fresh, {"tie_word_embeddings": tensors.tied}, {"tie_word_embeddings": True})
    _put_quantization(result, _quantization(custom, tensors), implied=None)
    _put_dtype(result, custom.get("torch_dtype") or tensors.dtype, fresh.get("torch_dtype"))

    vision, fresh_vision = result.setdefault("vision_config", {}), fresh.get("vision_config", {})
    _set(vision, fresh_vision, HF_VISION_CONSTANTS, HF_VISION_CONSTANTS)
    vision_values = _translated(custom["vision_config"], VISION_FIELDS)
    _set(vision, fresh_vision, vision_values, _hf_defaults(VISION_FIELDS))
    _set(
        vision,
        fresh_vision,
        {"projection_dropout": vision_values["hidden_dropout_prob"]},
        {"projection_dropout": 0.0},
    )

    text, fresh_text = result.setdefault("text_config", {}), fresh.get("text_config", {})
    fields = _text_fields(family)
    values = _translated(custom["llm_config"], fields)
    changed = _set(text, fresh_text, {"model_type": family.hf_model_type, **values}, _hf_defaults(fields))
    if changed & ROPE_FIELDS:
        text.pop("rope_parameters", None)
        rope = {**fresh_text, **values}
        text.update({name: rope[name] for name in ROPE_FIELDS if name in rope})
        if family.hf_model_type == "phi3":  # the only class that insists on the old spelling
            text["rope_scaling"] = old_style_scaling(text["rope_scaling"])
    if "num_experts" in changed:
        text.pop("num_local_experts", None)
    _set(text, fresh_text, {"tie_word_embeddings": tensors.tied}, {"tie_word_embeddings": False})
    return result


def to_custom_config(
    hf: Config, family: Family, tensors: TensorFacts, old: Config | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The custom config.json for an HF one, and the names of the fields whose values were assumed.

    Without ``old``, what HF's config cannot say is filled in with what upstream's current releases
    use.
    """
    hf = in_old_hf_spelling(hf)
    named = hf.get("torch_dtype") or tensors.dtype
    result = deepcopy(dict(old)) if old is not None else _new_custom_config(family, named)
    _put_dtype(result, named, result.get("torch_dtype") or tensors.dtype)
    _put_custom(result, hf, TOP_FIELDS)
    _put_custom(result["vision_config"], hf.get("vision_config", {}), VISION_FIELDS)
    fields = _text_fields(family)
    _put_custom(result["llm_config"], hf["text_config"], fields)
    for holder in (result, result["llm_config"]):
        if holder.get("tie_word_embeddings", False) != tensors.tied:
            holder["tie_word_embeddings"] = tensors.tied
    _put_quantization(result, _quantization(hf, tensors), implied=_MXFP4)
    tokens = _whole(hf, "image_seq_length", 256)
    if old is None or tokens_per_tile(result) != tokens:
        side = isqrt(tokens) * result["vision_config"].get("patch_size", 14)
        result["force_image_size"] = round(side / result.get("downsample_ratio", 0.5))
    assumed = () if old is not None else ("template", *_CUSTOM_ASSUMPTIONS)
    return result, assumed


def description(config: Config, family: Family) -> dict[str, Any]:
    """The sections of either format's config that decide about tensors, as an HF config spells them."""
    if "llm_config" in config:
        return {
            **_translated(config, TOP_FIELDS),
            "vision_config": _translated(config["vision_config"], VISION_FIELDS),
            "text_config": {
                "model_type": family.hf_model_type,
                **_translated(config["llm_config"], _text_fields(family)),
            },
        }
    hf = in_old_hf_spelling(config)
    return {**hf, "vision_config": {**_hf_defaults(VISION_FIELDS), **hf.get("vision_config", {})}}


def states_tied(config: Config) -> bool:
    """Whether ``config`` lets the output head be the input embeddings, at either of its two levels."""
    section_name = "llm_config" if "llm_config" in config else "text_config"
    flags = [config.get("tie_word_embeddings"), config[section_name].get("tie_word_embeddings")]
    unstated = flags == [None, None] and section_name == "text_config"
    return True in flags or unstated


def in_old_hf_spelling(hf: Config) -> dict[str, Any]:
    """An HF config as transformers 4 would have written it (the input is not changed)."""
    result = deepcopy(dict(hf))
    dtype = result.pop("dtype", None)
    if dtype is not None:
        result.setdefault("torch_dtype", dtype)
    if isinstance(result.get("text_config"), dict):
        result["text_config"] = in_old_spelling(result["text_config"])
    return result


def tokens_per_tile(custom: Config) -> int:
    """How many ``<IMG_CONTEXT>`` tokens one image tile becomes."""
    vision = custom["vision_config"]
    side = _whole(custom, "force_image_size", 0) or _whole(vision, "image_size", 224)
    ratio = custom.get("downsample_ratio", 0.5)
    return int((side // _whole(vision, "patch_size", 14)) ** 2 * ratio**2)


def _translated(section: Config, fields: Iterable[Field]) -> dict[str, Any]:
    pairs = ((field, section.get(field.custom, field.custom_default)) for field in fields)
    return {field.hf: field.to_hf(value) for field, value in pairs if value is not ABSENT}


def _whole(section: Config, name: str, default: int) -> int:
    value = section.get(name)
    value = default if value is None else value
    if type(value) is not int or value < 0:
        raise ConfigError(
            f"config.json has {name} {value!r}, which is not a number of pixels, patches or tokens.",
            "Use the config.json that the checkpoint was saved with.",
        )
    return value


def _text_fields(family: Family) -> tuple[Field, ...]:
    return text_fields(family.architecture, family.hf_model_type)


def _hf_defaults(fields: Iterable[Field]) -> dict[str, Any]:
    return {field.hf: field.hf_default for field in fields}


def _set(target: dict[str, Any], meaning: Config, values: Config, defaults: Config) -> set[str]:
    """Write ``values`` into ``target`` where its ``meaning`` differs; the names that were written."""
    changed = {
        name
        for name, value in values.items()
        if (name not in meaning and (not meaning or defaults.get(name, ABSENT) != value))
        or (name in meaning and meaning[name] != value)
    }
    target.update({name: values[name] for name in values if name in changed})
    return changed


def _put_custom(target: dict[str, Any], hf: Config, fields: Iterable[Field]) -> None:
    """Write the HF values into the custom ``target`` wherever it means something else."""
    for field in fields:
        wanted = hf.get(field.hf, field.hf_default)
        if wanted is ABSENT:
            continue
        current = target.get(field.custom, field.custom_default)
        if current is ABSENT or field.to_hf(current) != wanted:
            target[field.custom] = field.to_custom(wanted)


def _quantization(config: Config, tensors: TensorFacts) -> Any:
    """The quantization_config, wherever it stands; of MXFP4 experts even if it stands nowhere."""
    stated = _stated_quantization(config)
    method = stated.get("quant_method") if isinstance(stated, dict) else stated
    if stated is not None and not (method == "mxfp4" and tensors.mxfp4):
        raise UnsupportedModelError(
            f"config.json has a quantization_config of method {method!r}; only GPT-OSS experts in MXFP4 can "
            f"be converted in their quantised form.",
            "Convert the unquantised checkpoint and quantise the result.",
        )
    return _MXFP4 if tensors.mxfp4 and stated is None else stated


def _stated_quantization(config: Config) -> Any:
    holders = (config, config.get("llm_config", {}), config.get("text_config", {}))
    return next((h["quantization_config"] for h in holders if h.get("quantization_config")), None)


def _put_quantization(target: dict[str, Any], wanted: Any, implied: Any) -> None:
    """State in ``target`` how experts are quantised, or that they are not.

    ``implied`` is what it means that ``target`` states nothing.
    """
    if (_stated_quantization(target) or implied) == wanted:
        return
    for holder in (target, target.get("llm_config", {}), target.get("text_config", {})):
        holder.pop("quantization_config", None)
    if wanted is not None:
        target["quantization_config"] = wanted


def _put_dtype(target: dict[str, Any], wanted: str, stated: Any) -> None:
    """State the dtype at the top, and below wherever ``target`` states one, under the names in use there."""
    if stated == wanted:
        return
    names = ("torch_dtype", "dtype") if "llm_config" not in target else ("torch_dtype",)
    target.update(dict.fromkeys(names, wanted))
    for section in (value for value in target.values() if isinstance(value, dict)):
        section.update({name: wanted for name in names if section.get(name)})


def _new_custom_config(family: Family, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "template": _TEMPLATES.get(family.hf_model_type, _DEFAULT_TEMPLATE),
        **_CUSTOM_ASSUMPTIONS,
        "pad2square": False,
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "torch_dtype": dtype,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "drop_path_rate": 0.0,
            "initializer_factor": 1.0,
            "torch_dtype": dtype,
        },
        "llm_config": {
            "architectures": [family.architecture],
            "model_type": family.hf_model_type,
            "torch_dtype": dtype,
        },
    }
