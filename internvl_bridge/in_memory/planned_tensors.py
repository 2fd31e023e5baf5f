"""What tensors in memory are, how they are planned, and how a plan makes others of them."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from internvl_bridge.convert.options import Options
from internvl_bridge.errors import ContradictionError, OptionError, first_few
from internvl_bridge.mapping.family_from_keys import guessed_route
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.plan import Plan, Recipe, TensorSpec
from internvl_bridge.mapping.routes import plan_route
from internvl_bridge.mapping.several_models import model_keys_in
from internvl_bridge.mapping.spellings import CUSTOM, KeySpelling, chosen_spelling, spelling_in
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.mapping.wrapped_names import clean_names
from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.json_files import JsonFile
from internvl_bridge.planning.checked_plan import described_specs
from internvl_bridge.planning.output_head import SameBits
from internvl_bridge.planning.tensor_plan import plan_tensors

StateDict = Mapping[str, torch.Tensor]


def clean_keys(keys: Collection[str], format_: Format) -> dict[str, str]:
    """The keys of a model by those that were found, where training wrappers have changed them; without buffers."""
    names = clean_names(keys, model_keys_in(format_))
    if names is None:
        return {key: key for key in keys}
    left_out = [f"Left out, as no weights of the model: {first_few(names.left_out)}."] if names.left_out else []
    warnings.warn(" ".join([*names.remarks, *left_out]), stacklevel=4)
    return dict(names.renamed)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan of tensors in memory. ``copies`` are those that it leaves out, by the tensor that they copy."""

    plan: Plan
    copies: Mapping[str, str]


def planned(tensors: StateDict, wanted: Format, options: Options, config: Mapping[str, Any] | None) -> Planned:
    """How ``tensors`` become those of the format ``wanted``."""
    specs = {key: spec_of(tensor) for key, tensor in tensors.items()}
    target = chosen_spelling(wanted, options.layout, options.experts)
    if config is None:
        return Planned(plan_route(guessed_route(specs, target), specs), {})
    model = described_by(config, specs)
    source = spelling_in(wanted.other, specs, model.family)
    found = plan_tensors(
        model, specs, (source, target), same_bits_in(tensors), stores_copy=_stores_copy(target, options)
    )
    return Planned(found.plan, _copies(model, source) if found.drops_head else {})


def planned_from_config(config: Mapping[str, Any], wanted: Format, options: Options) -> Planned:
    """How the tensors that ``config`` describes become those of ``wanted``, whatever their dtypes.

    ``options`` say how HF keys are spelled, of the sources as well. An output head that may be a copy is taken for one.
    """
    model = described_by(config, {})
    source, target = (chosen_spelling(keys, options.layout, options.experts) for keys in (wanted.other, wanted))
    specs = described_specs(model, source)
    found = plan_tensors(model, specs, (source, target), same_bits_in({}), stores_copy=_stores_copy(target, options))
    return Planned(found.plan, _copies(model, source) if model.may_be_tied else {})


def _stores_copy(target: KeySpelling, options: Options) -> bool:
    return target == CUSTOM and options.tied != "keep"


def _copies(model: ModelDescription, keys: KeySpelling) -> dict[str, str]:
    tie = tied_head(model.family, model.dims.text, keys)
    return {tie.head: tie.embeddings}


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


def kept(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of what has to wait: a producer may fill the next tensor into the same memory."""
    return tensor if tensor.is_meta else tensor.detach().clone()


def gathered(recipe: Recipe, tensors: StateDict) -> torch.Tensor:
    """The tensor that ``recipe`` makes: a source itself or a view of it where it is one run, on the same device.

    Raises ContradictionError for sources on several devices, or of several dtypes.
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
    if len(dtypes := {str(tensor.dtype) for tensor in flat.values()}) > 1:
        raise ContradictionError(
            f"{first_few(list(flat))} are of {' and '.join(sorted(dtypes))}, but become one tensor.",
            "Cast them to one dtype.",
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
