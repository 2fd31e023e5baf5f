"""Plan the conversion of a checkpoint on disk: only there the bits of its output head can be read."""

import shlex

from internvl_bridge.checkpoint.model import TORCH_NAMES, Model, opened_as_stored
from internvl_bridge.checkpoint.weights import same_bits_in, whole_specs
from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.mapping.lora.wrapped import is_wrapped
from internvl_bridge.mapping.packing import Packed, packed_dtypes
from internvl_bridge.mapping.spellings import KeySpelling
from internvl_bridge.metadata.adapters import ADAPTER_CONFIG
from internvl_bridge.metadata.config.edited import states_ranks
from internvl_bridge.metadata.json_files import is_present
from internvl_bridge.planning.output_head import SameBits
from internvl_bridge.planning.tensor_plan import ModelPlan, plan_tensors
from internvl_bridge.storage.file_system import FileSystem
from internvl_bridge.storage.local_files import LOCAL

HEAD_IS_COPY = "head_is_copy"
"""What a run remembers of an output head: whether it is a copy of the embeddings."""


def plan_model(model: Model, target: KeySpelling, *, stores_copy: bool, files: FileSystem = LOCAL) -> ModelPlan:
    """As :func:`plan_tensors`, for a checkpoint whose weights are read from ``files``.

    Reads its embeddings if only their bits show whether the output head is a copy of them. Raises
    UnsupportedModelError, too, for dtypes that weights do not have.
    """
    if is_wrapped(model.specs):
        raise not_merged(model)
    same_bits, route = _same_bits(model, files), (model.keys, target)
    planned = plan_tensors(model.description, model.specs, route, same_bits, stores_copy=stores_copy)
    check_dtypes(model, planned.packed)
    return planned


def _same_bits(model: Model, files: FileSystem) -> SameBits:
    """Compares tensors of ``model``. Where not all data is here, what is known counts.

    If nothing is known, a head that may be a copy is one. A conversion does not leave it at that: it needs the data.
    """
    if model.has_all_data or (files is not LOCAL and model.source.head_is_copy is None):
        return same_bits_in(model.weights, files)
    return lambda *_: model.source.head_is_copy is not False


def not_merged(model: Model) -> UnsupportedModelError:
    """The refusal of a model that PEFT has wrapped, with the commands that make whole checkpoints of it."""
    found = [key for key in whole_specs(opened_as_stored(model)) if is_wrapped([key])]
    source = shlex.quote(str(model.source.weights))
    more = [] if model.source.config is None else ["--config", str(model.source.config)]
    more += [] if model.source.state_dict is None else ["--state-dict", model.source.state_dict]
    places = (model.source.weights, model.directory)
    known = states_ranks(model.description.values) or any(is_present(place / ADAPTER_CONFIG) for place in places)
    options = "".join(f" {shlex.quote(word)}" for word in more) + ("" if known else " --alpha ALPHA")
    alpha = "" if known else " ALPHA is the lora_alpha of the training, which nothing here states."
    return UnsupportedModelError(
        f"{model.source.weights} holds a LoRA adapter that is not merged into its base weights: {found[0]} and "
        f"{len(found) - 1} more.",
        f"Merge it, and convert the result: internvl-bridge merge {source} MERGED{options}. Or make an adapter and its "
        f"base model of it: internvl-bridge extract {source} PARTS{options}.{alpha}",
    )


def check_dtypes(model: Model, packed: Packed | None) -> None:
    """Raise UnsupportedModelError for dtypes that mean other quantised weights than ``packed`` says."""
    quantised = {} if packed is None else packed_dtypes(packed.packing, model.specs)
    for key, spec in model.specs.items():
        if spec.dtype in quantised.get(key, TORCH_NAMES):
            continue
        raise UnsupportedModelError(
            f"{key} has dtype {spec.dtype}: either it is quantised in a way that is not known here, or it is not a "
            f"weight.",
            "Convert a checkpoint in BF16, F16, F32 or F64, and quantise the result.",
        )
