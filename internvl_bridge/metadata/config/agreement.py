"""Compare what two config.json of one model say that it computes, be they of one format or of two."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from internvl_bridge.errors import shown
from internvl_bridge.mapping.config_fields import ABSENT, Field
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.fields import TOP_FIELDS, VISION_FIELDS

_COMPUTES_NOTHING = {
    "vocab_size",
    "head_dim",
    "max_position_embeddings",
    "initializer_range",
    "attention_dropout",
    "hidden_dropout_prob",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "output_router_logits",
    "router_aux_loss_coef",
}
"""HF names of fields that say nothing about what a trained model computes, or that its tensors and heads show."""
_NULL_MEANS = {"text_config.rope_scaling", "text_config.sliding_window"}
"""Fields of which null says something: that there is none. Elsewhere it leaves the value to the class."""
_ALIASES = {"swish": "silu", "gelu_python": "gelu"}
_OF_WINDOWS = {"text_config.sliding_window", "text_config.max_window_layers"}


def differing_fields(ours: ModelDescription, theirs: ModelDescription) -> dict[str, str]:
    """The fields that change what a model computes and differ, by their HF names, with both values.

    A field that only one side states is left out: what its absence means is up to the class.
    """
    here, there = _meaning(ours), _meaning(theirs)
    return {
        name: f"{shown(here[name])} and {shown(there[name])}"
        for name in here
        if name in there and _is_stated(name, here[name]) and _is_stated(name, there[name])
        if here[name] != there[name]
    }


def other_heads(ours: ModelDescription, theirs: ModelDescription) -> str | None:
    """How the two divide the same shapes among other numbers of heads; None if they do not."""
    text, other = ours.dims.text, theirs.dims.text
    mine, its = ((dims.heads, dims.kv_heads, dims.head_dim) for dims in (text, other))
    if mine != its and _widths(mine) == _widths(its):
        return f"{_heads_text(mine)}, and {_heads_text(its)}"
    vision, tower = ours.dims.vision, theirs.dims.vision
    if vision.heads != tower.heads and vision.hidden == tower.hidden:
        return f"{vision.heads} heads in the vision tower, and {tower.heads}"
    return None


def _is_stated(name: str, value: Any) -> bool:
    return value is not ABSENT and (value is not None or name in _NULL_MEANS)


def _widths(heads: tuple[int, int, int]) -> tuple[int, int]:
    return heads[0] * heads[2], heads[1] * heads[2]


def _heads_text(heads: tuple[int, int, int]) -> str:
    return f"{heads[0]} heads ({heads[1]} of keys and values) of {heads[2]} elements"


def _meaning(model: ModelDescription) -> dict[str, Any]:
    """Every field that both formats have, in HF names and values."""
    parts = (
        ("", model.values, TOP_FIELDS),
        ("vision_config.", model.vision, VISION_FIELDS),
        ("text_config.", model.text, model.text_fields),
    )
    meaning = {
        f"{prefix}{name}": value
        for prefix, values, fields in parts
        for name, value in _section(model.format, values, fields)
    }
    layers = model.dims.vision.layers + 1
    if meaning["vision_feature_layer"] >= 0:
        meaning["vision_feature_layer"] -= layers  # as it is counted from the end
    for name, value in meaning.items():
        if isinstance(value, str):
            meaning[name] = _ALIASES.get(value, value)
    if meaning.get("text_config.use_sliding_window", True) is not True:  # then transformers writes null for its size
        return {name: value for name, value in meaning.items() if name not in _OF_WINDOWS}
    return meaning


def _section(format_: Format, values: Mapping[str, Any], fields: Iterable[Field]) -> Iterator[tuple[str, Any]]:
    for field in fields:
        if field.hf in _COMPUTES_NOTHING:
            continue
        if format_ is Format.HF:
            yield field.hf, values.get(field.hf, field.hf_default)
        else:
            value = values.get(field.custom, field.custom_default)
            yield field.hf, value if value is ABSENT else field.to_hf(value)
