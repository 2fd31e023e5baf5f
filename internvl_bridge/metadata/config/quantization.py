"""The quantization_config of a config.json, in either format."""

from collections.abc import Iterator
from typing import Any

from internvl_bridge.errors import UnsupportedModelError, shown
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.packing import LAYERS, MXFP4, SKIPPED, Packed
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
_IGNORE = "ignore"
"""The one list of modules whose entries are full names or patterns."""


def quantization(config: Config, packed: Packed | None, wanted: Format) -> Any:
    """The quantization_config, wherever it stands in ``config``, with the module names of the format ``wanted``.

    ``packed`` is how the tensors are quantised. Experts in MXFP4 have one even if it stands nowhere. Raises
    UnsupportedModelError if the tensors are not quantised as it says.
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
        says = "no quantization_config" if stated is None else f"a quantization_config of method {_method(stated)!r}"
        raise UnsupportedModelError(
            f"config.json has {says}, but the tensors are quantised as {packing.name} ({packing.method!r}).",
            "Use the config.json that this checkpoint was saved with.",
        )
    if packing is MXFP4:
        return stated
    declared = stated if isinstance(stated, dict) else {"quant_method": stated}
    return {**declared, packing.skipped: _skipped(declared.get(packing.skipped), packed, wanted)}


def put_quantization(target: dict[str, Any], wanted: Any, implied: Any) -> None:
    """State in ``target`` how its weights are quantised, or that they are not.

    ``implied`` is what it means that ``target`` states nothing. What ``target`` states stays as it is if it differs in
    nothing but the modules that are not quantised: they follow from the tensors.
    """
    stated = _stated(target)
    if stated is None and wanted == implied:
        return
    if stated == wanted or (_method(wanted) != MXFP4.method and _without_modules(stated) == _without_modules(wanted)):
        return
    for holder in _holders(target):
        holder.pop("quantization_config", None)
    if wanted is not None:
        target["quantization_config"] = wanted


def _skipped(stated: Any, packed: Packed, wanted: Format) -> list[str]:
    """The modules that are not quantised: as ``stated`` if that names them all."""
    kept, layers = list(_KEPT[wanted]), list(packed.plain)
    if wanted is Format.HF:
        layers = [_LAYERS_OF_HF + layer.removeprefix(LAYERS) for layer in layers]
    if packed.packing.skipped == _IGNORE:
        kept = [f"re:.*{name.removeprefix('model.')}.*" for name in kept]
    names = [*kept, *layers]
    return stated if isinstance(stated, list) and all(name in stated for name in names) else names


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
