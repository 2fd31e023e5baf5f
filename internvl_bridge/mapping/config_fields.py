"""Which field of one format's config.json is which of the other's: names, kinds of values, defaults, spelling."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from internvl_bridge.mapping import value_checks
from internvl_bridge.mapping.rope_scaling import RopeReader, canonical_scaling, typed_scaling
from internvl_bridge.mapping.value_checks import ValueCheck, optional

ABSENT: Any = object()
"""The value of a field that is not there; both formats' classes then use the same default."""


def _unchanged(value: Any) -> Any:
    return value


def _always(_: Any) -> bool:
    """What training switched off to save memory, and every use of a model that generates wants."""
    return True


@dataclass(frozen=True, slots=True)
class Field:
    """One quantity: its name in each format, its kind, what its absence means, how its value is spelled.

    ``to_custom(to_hf(value))`` means what ``value`` means, for whoever runs a trained model.
    """

    custom: str
    hf: str
    kind: ValueCheck
    custom_default: Any = ABSENT
    hf_default: Any = ABSENT
    to_hf: Callable[[Any], Any] = _unchanged
    to_custom: Callable[[Any], Any] = _unchanged


def same(kind: ValueCheck, *names: str) -> tuple[Field, ...]:
    """Fields of one kind with one name and the same default in both formats."""
    return tuple(Field(name, name, kind) for name in names)


@dataclass(frozen=True, slots=True)
class ExpertFields:
    """The names of the fields, of a language model's HF config, that describe its mixture of experts.

    ``count`` is how many experts a layer has, ``renamed_count`` transformers 5's name for it where that is another
    one. ``intermediate`` is the width of an expert. Every ``step``-th layer has experts, but for the ``dense_layers``;
    without such fields every layer has.
    """

    count: str
    intermediate: str
    renamed_count: str | None = None
    step: str | None = None
    dense_layers: str | None = None


def rope_fields(rope: RopeReader) -> tuple[Field, ...]:
    """The fields that state rotary embeddings, for a language model whose classes read them as ``rope`` says."""
    unstated = ABSENT if rope.scales_by_default else None

    def to_custom(canonical: Any) -> Any:
        return typed_scaling(canonical, rope.custom_type_key, rope.custom_type_names)

    return (
        Field("rope_theta", "rope_theta", value_checks.positive_number, rope.base, rope.base),
        *same(optional(value_checks.positive_number), "partial_rotary_factor"),
        Field("rope_scaling", "rope_scaling", _anything, unstated, unstated, canonical_scaling, to_custom),
    )


def _anything(_: Any) -> bool:
    return True  # rope_scaling has a module of its own, which refuses what it does not understand


COMMON = (
    *same(
        value_checks.positive,
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    ),
    *same(optional(value_checks.positive), "num_key_value_heads"),
    *same(value_checks.activation, "hidden_act"),
    *same(value_checks.number, "initializer_range", "attention_dropout"),
    *same(value_checks.positive_number, "rms_norm_eps"),
    Field("use_cache", "use_cache", optional(value_checks.flag), True, True, _always),
    *same(optional(value_checks.token_ids), "bos_token_id", "eos_token_id"),
    *same(optional(value_checks.padding), "pad_token_id"),
)
SLIDING = (
    *same(optional(value_checks.positive), "sliding_window"),
    *same(optional(value_checks.flag), "use_sliding_window"),
    *same(optional(value_checks.index), "max_window_layers"),
    *same(optional(value_checks.words), "layer_types"),
)
ROUTER = (
    *same(value_checks.positive, "num_experts_per_tok"),
    *same(value_checks.flag, "output_router_logits"),
    *same(value_checks.number, "router_aux_loss_coef"),
)
HEAD_DIM = same(optional(value_checks.positive), "head_dim")
HEADS = (*HEAD_DIM, *same(value_checks.flag, "attention_bias"))
