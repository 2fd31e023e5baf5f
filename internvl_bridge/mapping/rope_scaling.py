"""How the scaling of rotary embeddings is spelled: one canonical way, and those of the classes that read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from internvl_bridge.errors import ConfigError
from internvl_bridge.mapping import value_checks

ORIGINAL_LENGTH = "original_max_position_embeddings"
TYPE_KEYS = ("rope_type", "type")
_ALIASES = {"su": "longrope"}
# The numbers without which each kind of scaling is not defined.
_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", ORIGINAL_LENGTH),
    "longrope": ("short_factor", "long_factor"),
}


@dataclass(frozen=True, slots=True)
class RopeReader:
    """How the classes of one language model read rotary embeddings.

    ``custom_type_key`` is the key under which the custom class reads the kind of scaling. ``custom_type_names`` are its
    own names for kinds. ``hf_type_key`` is the key that HF's class of transformers 4 insists on. It is None where the
    class reads both. ``base`` is what it means that no base is stated. ``scales_by_default``: the classes scale, in a
    way of their own, where nothing is stated. ``original_length_on_top``: they read
    ``original_max_position_embeddings`` one level up, and know only the scaling longrope without a factor (Phi-3).
    """

    custom_type_key: str
    custom_type_names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    hf_type_key: str | None = None
    base: float = 10_000.0
    scales_by_default: bool = False
    original_length_on_top: bool = False


def canonical_scaling(scaling: Any) -> Any:
    """``rope_scaling`` with ``rope_type`` as its only type key; None when it scales nothing.

    Raises ConfigError for anything but null or a known kind of scaling with its numbers.
    """
    if scaling is None:
        return None
    stated = [scaling[key] for key in TYPE_KEYS if key in scaling] if isinstance(scaling, dict) else []
    types = [_ALIASES.get(kind, kind) for kind in stated if isinstance(kind, str)]
    if len(types) != len(stated) or len(set(types)) != 1 or types[0] not in _NEEDED:
        raise not_understood(scaling)
    rest = {key: value for key, value in scaling.items() if key not in TYPE_KEYS}
    if not all(_is_factor(types[0], rest.get(name)) for name in _NEEDED[types[0]]):
        raise not_understood(scaling)
    if types[0] != "default":
        return {"rope_type": types[0], **rest}
    if rest:
        raise not_understood(scaling)
    return None


def typed_scaling(scaling: Any, key: str, names: Mapping[str, str]) -> Any:
    """A canonical scaling with its kind under ``key``, called by its name in ``names`` if it has one there."""
    if scaling is None:
        return None
    kind = scaling["rope_type"]
    return {key: names.get(kind, kind), **{k: v for k, v in scaling.items() if k != "rope_type"}}


def _is_factor(kind: str, value: Any) -> bool:
    if kind == "longrope":
        return isinstance(value, list) and bool(value) and all(map(value_checks.number, value))
    return value_checks.number(value)


def not_understood(scaling: Any) -> ConfigError:
    """The refusal of a scaling that no class of this family would read as it was meant."""
    return ConfigError(
        f"config.json scales rotary embeddings in a way that is not understood: {str(scaling)[:200]}. Known "
        f"kinds are {', '.join(_NEEDED)}, each with its numbers and one type.",
        "Correct rope_scaling or rope_parameters; a wrong one makes the model answer fluently and wrongly.",
    )
