"""The quantization_config of a config.json, in either format."""

from collections.abc import Iterator
from typing import Any

from internvl_bridge.errors import UnsupportedModelError, shown
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.packing import LAYERS, MXFP4, SKIPPED, Packed, Packing
from internvl_bridge.metadata.json_files import Config

MXFP4_EXPERTS = {"quant_method": MXFP4.method}
"""What it says of experts in 4-bit blocks, and what their absence means to the custom class of GPT-OSS."""

# The parts of a model that quantised releases leave as they are. transformers 5 compares such names with the start of
# a module's full name, and 4 with any part of it: only the long form is right in both.
_KEPT = {
    Format.HF: ("model.vision_tower", "model.multi_modal_projector", "lm_head"),
    Format.CUSTOM: ("vision_model", "mlp1", "lm_head"),
}

_LAYERS_OF_HF = "model.language_model.layers."
_ROUTER = ".mlp.gate"
"""How the names of routers end, which no quantiser packs, and whose absence from a list means nothing."""
_IGNORE = "ignore"
"""The one list of modules whose entries are full names or patterns."""


def quantization(config: Config, packed: Packed | None, wanted: Format) -> Any:
    """The quantization_config, wherever it stands in ``config``, with the module names of the format ``wanted``.

    ``packed`` is how the tensors are quantised. Experts in MXFP4 have one even if it stands nowhere. Raises
    UnsupportedModelError if the tensors are not quantised as it says. Raises it, too, if modules are named in a way
    that is not known.
    """
    stated = _stated(config)
    if packed is None:
        if stated is not None:
            raise UnsupportedModelError(
                f"config.json has a quantization_config of method {shown(_method(stated))}, but the tensors are not "
                f"quantised in that way.",
                "Remove quantization_config from config.json if the weights are not quantised.",
            )
        return None
    packing = packed.packing
    if packing is MXFP4 and stated is None:
        return dict(MXFP4_EXPERTS)
    if _method(stated) != packing.method:
        other = f"a quantization_config of method {shown(_method(stated))}"
        raise _contradiction(f"has {'no quantization_config' if stated is None else other}", packing)
    if packing is MXFP4:
        return stated
    declared = stated if isinstance(stated, dict) else {"quant_method": stated}
    _check_declared(config, declared, packed)
    return {**declared, packing.skipped: _skipped(declared.get(packing.skipped), packed, wanted)}


def _check_declared(config: Config, declared: Config, packed: Packed) -> None:
    """Raise UnsupportedModelError for what the tensors or another section contradict, or for other lists of modules."""
    for other in (holder.get("quantization_config") for holder in _holders(config)):
        if isinstance(other, dict) and other and _without_modules(other) != _without_modules(declared):
            raise _contradiction("has two quantization_configs that differ", packed.packing)
    for name, value in packed.packing.says.items():
        if declared.get(name, value) != value:
            raise _contradiction(f"says that {name} is {shown(declared[name])}", packed.packing)
    group = declared.get("group_size")
    if packed.groups and type(group) is int and group > 0 and packed.groups != {group}:
        raise _contradiction(f"says that group_size is {group}", packed.packing)
    groups = declared.get("config_groups")
    targets = [
        target
        for group in (groups.values() if isinstance(groups, dict) else ())
        for target in (group.get("targets") or () if isinstance(group, dict) else ())
    ]
    if odd := [target for target in targets if not (isinstance(target, str) and target.isidentifier())]:
        raise UnsupportedModelError(
            f"config.json's quantization_config has the target {shown(odd[0])}. Only names of classes, such as Linear, "
            f"mean the same in both formats.",
            "Convert the unquantised checkpoint and quantise the result.",
        )
    if lists := [name for name in ("ignored_layers", "sparsity_config") if declared.get(name)]:
        raise UnsupportedModelError(
            f"config.json's quantization_config has {lists[0]}, which names modules in a way that is not known here.",
            "Convert the unquantised checkpoint and quantise the result.",
        )


def _contradiction(says: str, packing: Packing) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"config.json {says}, but the tensors are quantised as {packing.name} ({packing.method!r}).",
        "Use the config.json that this checkpoint was saved with.",
    )


def put_quantization(target: dict[str, Any], wanted: Any, implied: Any) -> None:
    """State in ``target`` how its weights are quantised, or that they are not.

    ``implied`` is what it means that ``target`` states nothing. What ``target`` states stays as it is if it differs in
    nothing but its words for the parts that are not quantised: these follow from the format.
    """
    stated = _stated(target)
    if stated is None and wanted == implied:
        return
    if stated == wanted or _means(stated, wanted):
        return
    for holder in _holders(target):
        holder.pop("quantization_config", None)
    if wanted is not None:
        target["quantization_config"] = wanted


def _skipped(stated: Any, packed: Packed, wanted: Format) -> list[str]:
    """The modules that are not quantised: as ``stated`` if that names them all, and no layer that is."""
    kept, layers = list(_KEPT[wanted]), list(packed.plain)
    if wanted is Format.HF:
        layers = [_LAYERS_OF_HF + layer.removeprefix(LAYERS) for layer in layers]
    if packed.packing.skipped == _IGNORE:
        kept = [f"re:.*{name.removeprefix('model.')}.*" for name in kept]
    names = [*kept, *layers]
    named = isinstance(stated, list) and all(name in stated for name in names)
    return stated if named and _layers_in(stated) == _layers_in(layers) else names


def _means(stated: Any, wanted: Any) -> bool:
    """Whether both leave the same layers of the language model as they are, and agree in all else."""
    if _method(wanted) == MXFP4.method or _without_modules(stated) != _without_modules(wanted):
        return False
    lists = [[value for name, value in one.items() if name in SKIPPED] for one in (stated, wanted)]
    return _layers_in(*lists[0]) == _layers_in(*lists[1])


def _layers_in(*modules: Any) -> set[str]:
    """The layers of the language model among lists of module names, of either format."""
    names = {name for some in modules if isinstance(some, list) for name in some if isinstance(name, str)}
    return {name for name in names if name.startswith((LAYERS, _LAYERS_OF_HF)) and not name.endswith(_ROUTER)}


def _method(stated: Any) -> Any:
    return stated.get("quant_method") if isinstance(stated, dict) else stated


def _without_modules(stated: Any) -> Any:
    if not isinstance(stated, dict):
        return stated
    return {name: value for name, value in stated.items() if name not in SKIPPED}


def _stated(config: Config) -> Any:
    stated = (holder.get("quantization_config") for holder in _holders(config))
    return next((value for value in stated if value), None)


def _holders(config: Config) -> Iterator[Any]:
    """The config and those of its sections in which a quantization_config can stand."""
    yield config
    yield from (config[name] for name in ("llm_config", "text_config") if isinstance(config.get(name), dict))
