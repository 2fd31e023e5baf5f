"""One spelling for rotary embeddings and expert counts: transformers 4's, which all versions read.

transformers 5 writes ``rope_parameters`` (base and scaling together); transformers 4 reads only
``rope_theta`` and ``rope_scaling`` and falls back to a base of 10000 in silence.
"""

from collections.abc import Mapping
from typing import Any

from internvl_bridge.errors import ConfigError
from internvl_bridge.metadata.config import value_checks
from internvl_bridge.metadata.config.file import Config

_ORIGINAL = "original_max_position_embeddings"
_TYPE_KEYS = ("rope_type", "type")
_ALIASES = {"su": "longrope"}
# The numbers without which each kind of scaling is not defined.
_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL),
    "longrope": ("short_factor", "long_factor"),
}


def canonical_scaling(scaling: Any) -> Any:
    """``rope_scaling`` with ``rope_type`` as its only type key; None when it scales nothing.

    Raises ConfigError for anything but null or a known kind of scaling with its numbers.
    """
    if scaling is None:
        return None
    stated = [scaling[key] for key in _TYPE_KEYS if key in scaling] if isinstance(scaling, dict) else []
    types = [_ALIASES.get(kind, kind) for kind in stated if isinstance(kind, str)]
    if len(types) != len(stated) or len(set(types)) != 1 or types[0] not in _NEEDED:
        raise _not_understood(scaling)
    rest = {key: value for key, value in scaling.items() if key not in _TYPE_KEYS}
    if not all(_is_factor(types[0], rest.get(name)) for name in _NEEDED[types[0]]):
        raise _not_understood(scaling)
    if types[0] != "default":
        return {"rope_type": types[0], **rest}
    if rest:
        raise _not_understood(scaling)
    return None


def typed_scaling(scaling: Any, key: str, names: Mapping[str, str]) -> Any:
    """A canonical scaling with its kind under ``key``, called by its name in ``names`` if it has one there."""
    if scaling is None:
        return None
    kind = scaling["rope_type"]
    return {key: names.get(kind, kind), **{k: v for k, v in scaling.items() if k != "rope_type"}}


def in_both_spellings(text_config: Config) -> dict[str, Any]:
    """The rotary embeddings of ``text_config`` (canonical) as transformers 4 and 5 read them alike.

    Where ``rope_scaling`` is absent, its class's own holds, which transformers 5 would take for "none" beside
    ``rope_parameters``.
    """
    base = {name: text_config[name] for name in ("rope_theta", "partial_rotary_factor") if name in text_config}
    if "rope_scaling" not in text_config:
        return base
    scaling, model_type = text_config["rope_scaling"], text_config.get("model_type")
    parameters = {**(scaling or {"rope_type": "default"}), **base}
    if model_type == "phi3" and scaling is not None and _ORIGINAL in text_config:
        parameters[_ORIGINAL] = text_config[_ORIGINAL]
    if model_type == "phi3":  # the only class of transformers 4 that insists on this key
        scaling = typed_scaling(scaling, "type", {})
    if model_type == "gpt_oss" and scaling is None:
        scaling = {"rope_type": "default"}  # transformers 5 takes null for yarn
    return {**base, "rope_scaling": scaling, "rope_parameters": parameters}


def in_old_spelling(text_config: Config) -> dict[str, Any]:
    """``text_config`` as transformers 4 would have written it.

    Raises ConfigError if it is spelled in both ways and they disagree, or is not understood.
    """
    result = dict(text_config)
    parameters = result.pop("rope_parameters", None)
    if "rope_scaling" in result:
        result["rope_scaling"] = _settled(canonical_scaling(result["rope_scaling"]), result)
    if parameters is not None:
        _take_over(parameters, result)
    if result.get("model_type") == "qwen3_moe" and "num_local_experts" in result:
        _agree(result, "num_experts", result.pop("num_local_experts"))
    return result


def _take_over(parameters: Any, result: dict[str, Any]) -> None:
    """State in ``result`` what transformers 5's ``rope_parameters`` say."""
    if not isinstance(parameters, dict):
        raise _not_understood(parameters)
    flat = dict(parameters)
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in flat:
            _agree(result, name, flat.pop(name))
    stated = {} if flat.keys() & set(_TYPE_KEYS) else {"rope_type": "default"}
    scaling = _settled(canonical_scaling(stated | flat), result)
    _agree(result, "rope_scaling", scaling)


def _settled(scaling: Any, result: dict[str, Any]) -> Any:
    """``scaling`` without the length that Phi-3's class reads one level up; ``result`` then states it there.

    transformers 5 repeats it in ``rope_parameters``.
    """
    if scaling is None or result.get("model_type") != "phi3" or _ORIGINAL not in scaling:
        return scaling
    _agree(result, _ORIGINAL, scaling[_ORIGINAL])
    return {key: value for key, value in scaling.items() if key != _ORIGINAL}


def _is_factor(kind: str, value: Any) -> bool:
    if kind == "longrope":
        return isinstance(value, list) and bool(value) and all(map(value_checks.number, value))
    return value_checks.number(value)


def _agree(config: dict[str, Any], name: str, value: Any) -> None:
    if config.setdefault(name, value) != value:
        raise ConfigError(
            f"text_config says twice what {name} is: {config[name]!r} where transformers 4 reads it, and {value!r} "
            f"where 5 does (rope_parameters, num_local_experts).",
            "Set both to the value that you mean.",
        )


def _not_understood(scaling: Any) -> ConfigError:
    return ConfigError(
        f"config.json scales rotary embeddings in a way that is not understood: {str(scaling)[:200]}. Known "
        f"kinds are {', '.join(_NEEDED)}, each with its numbers and one type.",
        "Correct rope_scaling or rope_parameters; a wrong one makes the model answer fluently and wrongly.",
    )
