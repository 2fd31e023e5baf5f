"""One spelling for rotary embeddings and expert counts: transformers 4's, which all versions read.

transformers 5 writes ``rope_parameters`` (base and scaling together); transformers 4 reads only
``rope_theta`` and ``rope_scaling`` and falls back to a base of 10000 in silence.
"""

from typing import Any

from internvl_bridge.errors import ConfigError, shown
from internvl_bridge.mapping.families import Family
from internvl_bridge.mapping.rope_scaling import (
    ORIGINAL_LENGTH,
    TYPE_KEYS,
    RopeReader,
    canonical_scaling,
    not_understood,
    typed_scaling,
)
from internvl_bridge.metadata.json_files import Config


def in_both_spellings(text_config: Config, rope: RopeReader) -> dict[str, Any]:
    """The rotary embeddings of ``text_config`` (canonical) as transformers 4 and 5 read them alike.

    ``rope`` says how the classes of its family read them.

    Where ``rope_scaling`` is absent, its class's own holds, which transformers 5 would take for "none" beside
    ``rope_parameters``.
    """
    base = {name: text_config[name] for name in ("rope_theta", "partial_rotary_factor") if name in text_config}
    if "rope_scaling" not in text_config:
        return base
    scaling = text_config["rope_scaling"]
    parameters = {**(scaling or {"rope_type": "default"}), **base}
    if rope.original_length_on_top and scaling is not None and ORIGINAL_LENGTH in text_config:
        parameters[ORIGINAL_LENGTH] = text_config[ORIGINAL_LENGTH]
    if rope.hf_type_key is not None:
        scaling = typed_scaling(scaling, rope.hf_type_key, {})
    if rope.scales_by_default and scaling is None:
        scaling = {"rope_type": "default"}  # transformers 5 takes null for the class's own
    return {**base, "rope_scaling": scaling, "rope_parameters": parameters}


def suits_transformers_4(text_config: Config, family: Family) -> bool:
    """Whether ``text_config``, as a file has it, says in the words of version 4 all that it says here."""
    has_base = "rope_theta" in text_config or "rope_parameters" not in text_config
    names = family.experts
    has_count = names is None or names.count in text_config or names.renamed_count not in text_config
    return has_base and has_count


def in_old_spelling(text_config: Config, family: Family) -> dict[str, Any]:
    """``text_config``, of a model of ``family``, as transformers 4 would have written it.

    Raises ConfigError if it is spelled in both ways and they disagree, or is not understood.
    """
    result = dict(text_config)
    parameters = result.pop("rope_parameters", None)
    if "rope_scaling" in result:
        result["rope_scaling"] = _settled(canonical_scaling(result["rope_scaling"]), result, family.rope)
    if parameters is not None:
        _take_over(parameters, result, family.rope)
    experts = family.experts
    if experts and experts.renamed_count in result:
        _agree(result, experts.count, result.pop(experts.renamed_count))
    return result


def _take_over(parameters: Any, result: dict[str, Any], rope: RopeReader) -> None:
    """State in ``result`` what transformers 5's ``rope_parameters`` say."""
    if not isinstance(parameters, dict):
        raise not_understood(parameters)
    flat = dict(parameters)
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in flat:
            _agree(result, name, flat.pop(name))
    stated = {} if flat.keys() & set(TYPE_KEYS) else {"rope_type": "default"}
    scaling = _settled(canonical_scaling(stated | flat), result, rope)
    _agree(result, "rope_scaling", scaling)


def _settled(scaling: Any, result: dict[str, Any], rope: RopeReader) -> Any:
    """``scaling`` without the length that some classes read one level up; ``result`` then states it there.

    transformers 5 repeats it in ``rope_parameters``.
    """
    if scaling is None or not rope.original_length_on_top or ORIGINAL_LENGTH not in scaling:
        return scaling
    _agree(result, ORIGINAL_LENGTH, scaling[ORIGINAL_LENGTH])
    return {key: value for key, value in scaling.items() if key != ORIGINAL_LENGTH}


def _agree(config: dict[str, Any], name: str, value: Any) -> None:
    if config.setdefault(name, value) != value:
        raise ConfigError(
            f"text_config says twice what {name} is: {shown(config[name])} where transformers 4 reads it, and "
            f"{shown(value)} "
            f"where 5 does (rope_parameters, num_local_experts).",
            "Set both to the value that you mean.",
        )
