"""Translate config.json between the formats: what one cannot say is taken from an old config of the other.

Each function takes an ``old`` config of the target format (from a sidecar or a reference model).
What the source says wins. Wherever the old config already means the same, it stays as it is. It also stays as it is
for everything that the source's format cannot say. So going back restores it exactly.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from internvl_bridge.mapping.config_fields import ABSENT, Field
from internvl_bridge.mapping.families import Family, default_family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.packing import Packed
from internvl_bridge.metadata.config.description import ModelDescription, translated
from internvl_bridge.metadata.config.fields import ROPE_FIELDS, TOP_FIELDS, VISION_FIELDS
from internvl_bridge.metadata.config.quantization import MXFP4_EXPERTS, put_quantization, quantization
from internvl_bridge.metadata.config.rope import in_both_spellings
from internvl_bridge.metadata.config.tiling import custom_tiling, stated_tiling, tile_side_for, tokens_per_tile
from internvl_bridge.metadata.config.unsupported import HF_CONSTANTS, HF_VISION_CONSTANTS
from internvl_bridge.metadata.json_files import Config

# What the custom format says and HF's config cannot; upstream's current releases all say this.
_ASSUMED: dict[str, Any] = {
    "ps_version": "v2",
    "dynamic_image_size": True,
    "use_thumbnail": True,
    "min_dynamic_patch": 1,
    "max_dynamic_patch": 12,
    "pad2square": False,
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
}

OLDEST_VERSION = "4.52.1"
"""The first that reads such a config; where none is named, 4.57 warns of a tokenizer's regex that is right."""


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What the tensors themselves say, which no config can overrule.

    ``tied``: there is no output head, the input embeddings serve. ``packed``: how the language model is quantised, None
    if it is not. ``dtype``: the torch name of the weights' dtype, for configs that name none.
    """

    tied: bool
    packed: Packed | None
    dtype: str


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What the tokenizer and the chat template say: the id of ``<IMG_CONTEXT>`` and of the end of a turn."""

    image: int
    turn_end: int | None = None


def to_hf_config(
    custom: ModelDescription, tensors: TensorFacts, tokens: TokenFacts, old: ModelDescription | None
) -> dict[str, Any]:
    """The HF config.json for a custom one, readable by every transformers from 4.52 on."""
    result: dict[str, Any] = deepcopy(dict(old.file.values)) if old else {}
    meaning: Config = old.values if old else {}
    top = {
        "image_token_id": tokens.image,
        "image_seq_length": tokens_per_tile(custom.values),
        "tie_word_embeddings": tensors.tied,
        **translated(custom.values, TOP_FIELDS),
    }
    tiling = stated_tiling(custom_tiling(custom.values), thumbnail=custom.values.get("use_thumbnail", False))
    # An old config that leaves something out means its class's default; a new one leaves nothing out.
    _merge(result, meaning, {**HF_CONSTANTS, **top, **tiling}, {**HF_DEFAULTS, **tiling} if old else {})
    if old is None:
        result["transformers_version"] = OLDEST_VERSION
    put_quantization(result, quantization(custom.values, tensors.packed, Format.HF), implied=None)
    _put_dtype(result, custom.values.get("torch_dtype") or tensors.dtype, meaning.get("torch_dtype"))

    vision = translated(custom.vision, VISION_FIELDS)
    vision |= HF_VISION_CONSTANTS
    if old is None:
        vision["projection_dropout"] = vision["hidden_dropout_prob"]
    defaults = {**HF_VISION_CONSTANTS, **_hf_defaults(VISION_FIELDS)}
    _merge(result.setdefault("vision_config", {}), old.vision if old else {}, vision, defaults if old else {})

    classes = {"architectures": hf_architectures(custom.family)}
    text = {**classes, "model_type": custom.family.hf_model_type, **translated(custom.text, custom.text_fields)}
    text["tie_word_embeddings"] = tensors.tied
    if old is None or text["eos_token_id"] != old.text.get("eos_token_id", ABSENT):
        text["eos_token_id"] = _ending(text["eos_token_id"], tokens.turn_end)
    defaults = {**classes, "tie_word_embeddings": False, **_hf_defaults(custom.text_fields)}
    _merge_text(
        result.setdefault("text_config", {}), old.text if old else {}, text, defaults if old else {}, custom.family
    )
    return result


def to_custom_config(
    hf: ModelDescription, tensors: TensorFacts, from_files: Config, turn_end: int | None, old: ModelDescription | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The custom config.json for an HF one, and the names of the fields whose values were assumed.

    ``from_files`` are fields that the files beside HF's config state. Without ``old``, what no file states is filled
    in with what upstream's current releases use. Then every field is written, so that readers need no knowledge of
    the custom class's defaults.
    """
    named = hf.values.get("torch_dtype") or tensors.dtype
    result = deepcopy(dict(old.file.values)) if old else _new_custom_config(hf.family, named)
    result.update(deepcopy(dict(from_files)))
    _put_dtype(result, named, (old.values if old else result).get("torch_dtype") or tensors.dtype)
    _put_custom(result, old.values if old else None, hf.values, TOP_FIELDS)
    _put_custom(result["vision_config"], old.vision if old else None, hf.vision, VISION_FIELDS)
    text = dict(hf.text)
    if old and text.get("eos_token_id", ABSENT) == _ending(old.text.get("eos_token_id", ABSENT), turn_end):
        text["eos_token_id"] = old.text.get("eos_token_id", ABSENT)
    changed = _put_custom(result["llm_config"], old.text if old else None, text, hf.text_fields)
    if changed & set(ROPE_FIELDS) and "rope_parameters" in result["llm_config"]:
        del result["llm_config"]["rope_parameters"]
        _put_custom(result["llm_config"], None, text, [field for field in hf.text_fields if field.hf in ROPE_FIELDS])
    if old is None or old.may_be_tied != tensors.tied:
        result["tie_word_embeddings"] = result["llm_config"]["tie_word_embeddings"] = tensors.tied
    put_quantization(result, quantization(hf.values, tensors.packed, Format.CUSTOM), implied=MXFP4_EXPERTS)
    tokens = hf.values.get("image_seq_length", 256)
    if old is None or tokens_per_tile(result) != tokens:
        result["force_image_size"] = tile_side_for(tokens, result)
    assumed = () if old else tuple(name for name in ("template", *_ASSUMED) if name not in from_files)
    return result, assumed


def _ending(eos: Any, turn_end: int | None) -> Any:
    """The ``eos_token_id`` of an HF text config for a custom one: a token that ends a turn, if one is known."""
    stated = eos if isinstance(eos, list) else [eos]
    return eos if turn_end is None or turn_end in stated else turn_end


def hf_architectures(family: Family) -> list[str]:
    """The class of an HF language model, by which LMDeploy and llama.cpp choose theirs; transformers does not ask."""
    named = default_family(family.hf_model_type)
    return [(named or family).architecture]


def _hf_defaults(fields: Iterable[Field]) -> dict[str, Any]:
    return {field.hf: field.hf_default for field in fields}


HF_DEFAULTS = {
    **HF_CONSTANTS,
    "image_token_id": 151667,
    "image_seq_length": 256,
    "tie_word_embeddings": True,
    **_hf_defaults(TOP_FIELDS),
}
"""What it means to HF's class that a name at the top is not there."""


def _merge(old: dict[str, Any], meaning: Config, values: Config, defaults: Config) -> set[str]:
    """Make ``old`` say ``values``, with as few changes as possible; the names that had to change.

    ``meaning`` is ``old`` in the spelling of transformers 4, and ``defaults`` what it means that a name
    is not there. A value of ABSENT is taken out.
    """
    changed = [name for name, value in values.items() if meaning.get(name, defaults.get(name, ABSENT)) != value]
    for name in changed:
        if values[name] is ABSENT:
            old.pop(name, None)
        else:
            old[name] = values[name]
    return set(changed)


def _merge_text(old: dict[str, Any], meaning: Config, values: Config, defaults: Config, family: Family) -> None:
    """As ``_merge``, for the text config of a model of ``family``.

    What transformers 4 and 5 spell differently is written in both spellings.
    """
    changed = _merge(old, meaning, values, defaults)
    if changed & set(ROPE_FIELDS):
        merged = {name: value for name, value in {**meaning, **values}.items() if value is not ABSENT}
        for name in (*ROPE_FIELDS, "rope_parameters"):
            old.pop(name, None)
        old.update(in_both_spellings(merged, family.rope))
    if family.experts and family.experts.renamed_count and family.experts.count in changed:
        old[family.experts.renamed_count] = values[family.experts.count]


def _put_custom(target: dict[str, Any], old: Config | None, hf: Config, fields: Iterable[Field]) -> set[str]:
    """Write the HF values into the custom ``target``; the HF names of those that were written.

    Where there is an ``old`` config (``target`` in the spelling of transformers 4), only what it does not
    mean already.
    """
    written = set()
    for field in fields:
        wanted = hf.get(field.hf, field.hf_default)
        if old is not None:
            current = old.get(field.custom, field.custom_default)
            if (current if current is ABSENT else field.to_hf(current)) == wanted:
                continue
        written.add(field.hf)
        if wanted is ABSENT:
            target.pop(field.custom, None)
        else:
            target[field.custom] = field.to_custom(wanted)
    return written


def _put_dtype(target: dict[str, Any], wanted: str, stated: Any) -> None:
    """State the dtype at the top, and below wherever ``target`` states one, under the names in use there."""
    if stated == wanted:
        return
    names = ("torch_dtype", "dtype") if "llm_config" not in target or "dtype" in target else ("torch_dtype",)
    target.update(dict.fromkeys(names, wanted))
    for section in (value for value in target.values() if isinstance(value, dict)):
        section.update({name: wanted for name in names if section.get(name)})


def _new_custom_config(family: Family, dtype: str) -> dict[str, Any]:
    return {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": family.template,
        **_ASSUMED,
        "torch_dtype": dtype,
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "torch_dtype": dtype,
        },
        "llm_config": {
            "architectures": [family.architecture],
            "model_type": family.hf_model_type,
            "torch_dtype": dtype,
        },
    }
