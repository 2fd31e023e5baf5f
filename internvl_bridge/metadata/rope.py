"""One spelling for rotary embeddings and expert counts: transformers 4's, which all versions read.

transformers 5 writes ``rope_parameters`` (base and scaling together); transformers 4 reads only
``rope_theta`` and ``rope_scaling`` and falls back to a base of 10000 in silence.
"""

from typing import Any

from internvl_bridge.errors import ConfigError
from internvl_bridge.metadata.config_file import Config

_ORIGINAL = "original_max_position_embeddings"


def canonical_scaling(scaling: Any) -> Any:
    """``rope_scaling`` with ``rope_type`` as its only type key; None when it scales nothing."""
    if not isinstance(scaling, dict):
        return scaling
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    rest = {key: value for key, value in scaling.items() if key not in {"type", "rope_type"}}
    if kind == "default":
        return None
    return {"rope_type": "longrope" if kind == "su" else kind, **rest}


def old_style_scaling(scaling: Any) -> Any:
    """``rope_scaling`` as transformers 4.37 and the remote code validate it: ``type``, no ``rope_type``."""
    if not isinstance(scaling, dict):
        return scaling
    return {"type": scaling["rope_type"], **{k: v for k, v in scaling.items() if k != "rope_type"}}


def in_old_spelling(text_config: Config) -> dict[str, Any]:
    """``text_config`` as transformers 4 would have written it.

    Raises ConfigError if it is spelled in both ways and they disagree.
    """
    result = dict(text_config)
    parameters = result.pop("rope_parameters", None)
    if isinstance(parameters, dict):
        if any(isinstance(value, dict) for value in parameters.values()):
            raise ConfigError(
                "text_config.rope_parameters differs by layer type, which this model family never does.",
                "Use the config.json that the checkpoint was saved with.",
            )
        flat = dict(parameters)
        for name in ("rope_theta", "partial_rotary_factor"):
            if name in flat:
                _agree(result, name, flat.pop(name))
        result["rope_scaling"] = canonical_scaling(result.get("rope_scaling"))
        if flat.get(_ORIGINAL) == result.get(_ORIGINAL):
            flat.pop(_ORIGINAL, None)  # transformers 5 repeats here what Phi-3 says one level up
        if result["rope_scaling"] is None:
            result["rope_scaling"] = canonical_scaling(flat)
        else:
            _agree(result, "rope_scaling", canonical_scaling(flat))
    elif "rope_scaling" in result:
        result["rope_scaling"] = canonical_scaling(result["rope_scaling"])
    if result.get("model_type") == "qwen3_moe" and "num_local_experts" in result:
        _agree(result, "num_experts", result.pop("num_local_experts"))
    return result


def _agree(config: dict[str, Any], name: str, value: Any) -> None:
    if config.setdefault(name, value) != value:
        raise ConfigError(
            f"text_config says twice what {name} is: {config[name]!r} and {value!r}, spelled for "
            f"transformers 4 and 5.",
            "Correct or remove one of the two in config.json.",
        )
