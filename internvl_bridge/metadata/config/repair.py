"""The config.json of an HF checkpoint, in words that every transformers from 4.52 on reads alike."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from internvl_bridge.mapping.config_fields import ABSENT
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.fields import ROPE_FIELDS, VISION_FIELDS
from internvl_bridge.metadata.config.quantization import quantization
from internvl_bridge.metadata.config.rope import in_both_spellings
from internvl_bridge.metadata.config.translation import (
    HF_DEFAULTS,
    OLDEST_VERSION,
    TensorFacts,
    TokenFacts,
    hf_architectures,
)
from internvl_bridge.metadata.config.unsupported import HF_CONSTANTS, HF_VISION_CONSTANTS


def repaired_config(hf: ModelDescription, tensors: TensorFacts, tokens: TokenFacts) -> dict[str, Any]:
    """The config.json of ``hf`` in the words of transformers 4 and of 5, with no default left open.

    It says the same as before. What it does not know it keeps. Names stay in their order, and those that were missing
    follow in that of :func:`internvl_bridge.metadata.config.translation.to_hf_config`: what that or this function made
    stays as it is.

    Raises UnsupportedModelError if config.json says that the weights are quantised in a way that they are not.
    """
    dtype, quantized = hf.values.get("torch_dtype") or tensors.dtype, quantization(hf.values, tensors.packed, Format.HF)
    top = {
        **{name: hf.values.get(name, default) for name, default in HF_DEFAULTS.items()},
        "architectures": HF_CONSTANTS["architectures"],
        "image_token_id": tokens.image,
        "tie_word_embeddings": tensors.tied,
        "transformers_version": OLDEST_VERSION,
        "quantization_config": ABSENT if quantized is None else quantized,
        "torch_dtype": dtype,
        "dtype": dtype,
        "vision_config": _saying(hf.file.values["vision_config"], _vision(hf)),
        "text_config": _saying(hf.file.values["text_config"], _text(hf, tensors, tokens)),
        "auto_map": ABSENT,  # it names Python modules, which HF's classes do without and the output does not have
    }
    return deepcopy(_saying(hf.file.values, top))


def _vision(hf: ModelDescription) -> dict[str, Any]:
    defaults = {field.hf: field.hf_default for field in VISION_FIELDS} | HF_VISION_CONSTANTS
    stated = {name: hf.vision.get(name, default) for name, default in {**defaults, "projection_dropout": 0.0}.items()}
    return {**stated, "architectures": ABSENT}  # with it, llama.cpp makes a file without the vision tower


def _text(hf: ModelDescription, tensors: TensorFacts, tokens: TokenFacts) -> dict[str, Any]:
    text: dict[str, Any] = {
        "architectures": hf_architectures(hf.family),
        "model_type": hf.family.hf_model_type,
    }
    text |= {field.hf: hf.text.get(field.hf, field.hf_default) for field in hf.text_fields}
    text = {name: value for name, value in text.items() if value is not ABSENT}
    if text.get("eos_token_id") is None and tokens.turn_end is not None:
        text["eos_token_id"] = tokens.turn_end
    rope = in_both_spellings(text, hf.family.rope)
    text = {name: value for name, value in text.items() if name not in ROPE_FIELDS}
    names = hf.family.experts
    experts = {names.renamed_count: text[names.count]} if names and names.renamed_count else {}
    moved = {"quantization_config": ABSENT}  # to the top, where every reader looks for it
    return {**text, "tie_word_embeddings": tensors.tied, **rope, **experts, **moved}


def _saying(stated: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """``stated``, changed where it does not say ``values``; a name keeps its place, and one that is ABSENT goes."""
    missing = object()
    changes = {name: value for name, value in values.items() if stated.get(name, missing) != value}
    return {name: value for name, value in {**stated, **changes}.items() if value is not ABSENT}
