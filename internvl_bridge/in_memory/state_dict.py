"""The in-memory interpreter of plans: torch state dicts, converted without touching a value."""

import warnings
from collections.abc import Mapping
from math import hypot
from pathlib import Path
from typing import Any, Literal

import torch

from internvl_bridge.convert.options import ExpertsOption, Layout, Options, Tied, check_options, wanted_format
from internvl_bridge.errors import ContradictionError, OptionError, first_few
from internvl_bridge.mapping.family_from_keys import guessed_route
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.plan import Plan, Recipe, TensorSpec
from internvl_bridge.mapping.routes import plan_route
from internvl_bridge.mapping.several_models import model_keys_in
from internvl_bridge.mapping.spellings import chosen_spelling, spelling_in
from internvl_bridge.mapping.wrapped_names import clean_names
from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.json_files import JsonFile
from internvl_bridge.planning.output_head import SameBits
from internvl_bridge.planning.tensor_plan import plan_tensors
from internvl_bridge.verification.distance import distance

StateDict = Mapping[str, torch.Tensor]


def convert_state_dict(
    tensors: StateDict,
    direction: Literal["to-hf", "to-custom"],
    *,
    config: Mapping[str, Any] | None = None,
    layout: Layout = "l1",
    experts: ExpertsOption = "split",
    tied: Tied = "copy",
) -> dict[str, torch.Tensor]:
    """Convert a state dict in memory; dtypes, devices and values stay as they are.

    HF keys are recognised in any spelling. A prefix of all keys, names of training wrappers in them, and buffers that
    config.json determines are taken out, with a warning. Every key must be understood, and every group of tensors
    complete. With ``config``, the tensors must also be all those, and of the shapes, that it describes.

    Args:
        tensors: The state dict of a model of the other format.
        direction: "to-hf" or "to-custom".
        config: The contents of config.json, of either format. Without it nothing is known to be tied, and InternLM2's
            fused projections cannot be split.
        layout: How HF keys begin: "l1" as every transformers from 4.52 on reads them, "l2" as in
            ``model.state_dict()``.
        experts: The experts of Qwen3-MoE: "split" into one tensor each, or "fused" into one for all of a layer, as
            transformers 5 has them in ``model.state_dict()``.
        tied: What becomes of a shared output head in the custom format: a "copy", or none ("keep").

    Returns:
        The state dict in the format asked for. A tensor that is only renamed is the same object. A part of a larger one
        is a view of it where it is contiguous, detached from its gradients.

    Raises:
        OptionError: An argument cannot be used.
        TensorError: A key is unknown, missing, or of another shape or dtype than config.json or its group.
        UnsupportedModelError: ``config`` describes a model that has no counterpart in the other format.

    Example:
        >>> import torch
        >>> import internvl_bridge
        >>> internvl_bridge.convert_state_dict({"mlp1.0.weight": torch.ones(2)}, "to-hf")
        {'multi_modal_projector.layer_norm.weight': tensor([1., 1.])}
    """
    wanted = wanted_format(direction)
    options = Options(layout=layout, experts=experts, tied=tied)
    check_options(options)
    tensors = _clean(tensors, wanted.other)
    specs = {key: spec_of(tensor) for key, tensor in tensors.items()}
    if config is None:
        plan = plan_route(guessed_route(specs, chosen_spelling(wanted, options.layout, options.experts)), specs)
    else:
        plan = _plan(described_by(config, specs), tensors, specs, wanted, options)
    return {key: gathered(recipe, tensors) for key, recipe in plan.recipes.items()}


def _clean(tensors: StateDict, format_: Format) -> StateDict:
    """``tensors`` under the keys of a model, where training wrappers have changed them, and without buffers."""
    names = clean_names(tensors.keys(), model_keys_in(format_))
    if names is None:
        return tensors
    left_out = [f"Left out, as no weights of the model: {first_few(names.left_out)}."] if names.left_out else []
    warnings.warn(" ".join([*names.remarks, *left_out]), stacklevel=3)
    return {new: tensors[old] for old, new in names.renamed.items()}


def _plan(
    model: ModelDescription, tensors: StateDict, specs: Mapping[str, TensorSpec], wanted: Format, options: Options
) -> Plan:
    source = spelling_in(wanted.other, specs, model.family)
    return plan_tensors(
        model,
        specs,
        (source, chosen_spelling(wanted, options.layout, options.experts)),
        same_bits_in(tensors),
        stores_copy=wanted is Format.CUSTOM and options.tied != "keep",
    ).plan


def described_by(config: Mapping[str, Any], specs: Mapping[str, TensorSpec]) -> ModelDescription:
    """The model that the contents of a config.json describe. Raises as :func:`describe`, and for anything else."""
    if not isinstance(config, Mapping):
        raise OptionError(
            f"config is a {type(config).__name__}, not the contents of a config.json.", "Pass model.config.to_dict()."
        )
    return describe(JsonFile(Path("config"), "", config), specs)


def spec_of(tensor: torch.Tensor) -> TensorSpec:
    """The spec of a tensor in memory, with torch's name of its dtype."""
    return TensorSpec(str(tensor.dtype), tuple(tensor.shape))


def gathered(recipe: Recipe, tensors: StateDict) -> torch.Tensor:
    """The tensor that ``recipe`` makes: a source itself or a view of it where it is one run, on the same device.

    Raises ContradictionError for sources on several devices.
    """
    shape = recipe.spec.shape
    whole = tensors[recipe.runs[0].key]
    if len(recipe.runs) == 1 and whole.shape == shape:
        return whole
    flat = {key: tensors[key].detach().reshape(-1) for key in dict.fromkeys(run.key for run in recipe.runs)}
    if len({tensor.device for tensor in flat.values()}) > 1:
        raise ContradictionError(
            f"{first_few(list(flat))} lie on different devices, but become one tensor.", "Move them to one device."
        )
    parts = [flat[run.key].narrow(0, run.start, run.stop - run.start) for run in recipe.runs]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(shape)


def same_bits_in(tensors: StateDict) -> SameBits:
    """Compares two of ``tensors``, of one dtype and shape, bit for bit; of meta tensors, whether they are one."""

    def same_bits(left: str, right: str) -> bool:
        one, other = tensors[left], tensors[right]
        if one.is_meta or other.is_meta or one is other:
            return one is other
        ours, theirs = (tensor.detach().reshape(-1).view(torch.uint8) for tensor in (one, other))
        return torch.equal(ours, theirs.to(ours.device))

    return same_bits


def compute_l2_distance(left: torch.nn.Module | StateDict, right: torch.nn.Module | StateDict) -> float:
    """The Euclidean distance between two models or state dicts, over all their tensors, in float64.

    The square root of the sum of all squared differences. Nothing is skipped.

    Args:
        left: A model, or its state dict.
        right: Another one with the same keys and shapes.

    Returns:
        The distance; NaN if any difference is.

    Raises:
        ContradictionError: A key is missing on one side, or has another shape there.

    Example:
        >>> import torch
        >>> import internvl_bridge
        >>> internvl_bridge.compute_l2_distance({"a": torch.zeros(2)}, {"a": torch.tensor([3.0, 4.0])})
        5.0
    """
    ours, theirs = _state_dict(left), _state_dict(right)
    wrong = sorted(
        key
        for key in ours.keys() | theirs.keys()
        if key not in ours or key not in theirs or ours[key].shape != theirs[key].shape
    )
    if wrong:
        raise ContradictionError(
            f"The two state dicts cannot be compared: {first_few(wrong)} is missing in one of them or has another "
            f"shape there.",
            "Compare models of the same architecture and format.",
        )
    return hypot(*(distance(ours[key], theirs[key]).l2 for key in ours))


def _state_dict(model: torch.nn.Module | StateDict) -> StateDict:
    return model.state_dict() if isinstance(model, torch.nn.Module) else model
