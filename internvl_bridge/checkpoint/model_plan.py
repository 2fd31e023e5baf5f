"""Plan the conversion of a checkpoint on disk: only there the bits of its output head can be read."""

from internvl_bridge.checkpoint.model import TORCH_NAMES, Model
from internvl_bridge.checkpoint.weights import same_bits_in
from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.mapping.packing import Packed, packed_dtypes
from internvl_bridge.mapping.spellings import KeySpelling
from internvl_bridge.planning.tensor_plan import ModelPlan, plan_tensors


def plan_model(model: Model, target: KeySpelling, *, stores_copy: bool) -> ModelPlan:
    """As :func:`plan_tensors`, for a checkpoint on disk.

    Reads its embeddings if only their bits show whether the output head is a copy of them. Raises
    UnsupportedModelError, too, for dtypes that weights do not have.
    """
    same_bits, route = same_bits_in(model.weights), (model.keys, target)
    planned = plan_tensors(model.description, model.specs, route, same_bits, stores_copy=stores_copy)
    check_dtypes(model, planned.packed)
    return planned


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
