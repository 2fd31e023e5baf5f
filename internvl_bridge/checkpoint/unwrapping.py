"""The weights of a model that PEFT has wrapped, told apart: those of the base model, and those of the adapter."""

from collections.abc import Mapping
from dataclasses import replace

from internvl_bridge.checkpoint.opened_weights import LocatedTensor, OpenedWeights
from internvl_bridge.checkpoint.weights import tensor_locations, whole_specs
from internvl_bridge.mapping.lora.wrapped import unwrapped
from internvl_bridge.mapping.plan import Plan, identity


def base_weights(opened: OpenedWeights) -> OpenedWeights:
    """The weights of the base model in ``opened``, under their own names. Raises as :func:`unwrapped`."""
    keys = unwrapped(whole_specs(opened)).base
    assembly = opened.assembly or identity(whole_specs(opened))
    recipes = {name: assembly.recipes[key] for name, key in keys.items()}
    stored = {run.key for recipe in recipes.values() for run in recipe.runs}
    tensors = {key: tensor for key, tensor in opened.checkpoint.tensors.items() if key in stored}
    return replace(
        opened,
        checkpoint=replace(opened.checkpoint, tensors=tensors),
        assembly=Plan({key: assembly.sources[key] for key in tensors}, recipes),
    )


def adapter_tensors(opened: OpenedWeights) -> Mapping[str, LocatedTensor]:
    """The tensors of the adapter in ``opened``, under the keys that an adapter's file has for them."""
    located = tensor_locations(opened)
    return {name: located[key] for name, key in unwrapped(located).adapter.items()}
