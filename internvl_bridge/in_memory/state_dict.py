"""The in-memory interpreter of plans: torch state dicts, converted without touching a value."""

from collections.abc import Mapping
from math import hypot
from typing import Any, Literal

import torch

from internvl_bridge.convert.options import ExpertsOption, Layout, Tied
from internvl_bridge.errors import ContradictionError, first_few
from internvl_bridge.in_memory.converter import Converter
from internvl_bridge.in_memory.planned_tensors import StateDict
from internvl_bridge.verification.distance import distance


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
    return Converter(direction, specs=tensors, config=config, layout=layout, experts=experts, tied=tied).convert(
        tensors
    )


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
