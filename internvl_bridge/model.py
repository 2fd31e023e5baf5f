"""A checkpoint directory, read and understood, up to its plan into the other format."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.byte_plan import specs_of
from internvl_bridge.checked_plan import CheckedPlan, checked_plan
from internvl_bridge.errors import BridgeError, ConfigError, UnsupportedModelError
from internvl_bridge.mapping.families import Table
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.planning import Direction
from internvl_bridge.mapping.spellings import L1, Spelling, spelled, spelling_of
from internvl_bridge.metadata.config_file import Format, detect_format, read_config
from internvl_bridge.metadata.described import Described, describe
from internvl_bridge.metadata.sidecar import Complement, read_sidecar, reference_complement
from internvl_bridge.storage.checkpoint import Checkpoint, has_weights, open_checkpoint

_TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint on disk and what its headers and config.json say about it.

    ``complement`` is what is known about its twin in the other format. ``spelling`` is that of the
    HF keys; custom keys have only one.
    """

    directory: Path
    described: Described
    checkpoint: Checkpoint
    specs: Mapping[str, TensorSpec]
    spelling: Spelling
    complement: Complement | None

    @property
    def format(self) -> Format:
        return self.described.format

    @property
    def direction(self) -> Direction:
        """The direction of a conversion into the other format."""
        return Direction.TO_HF if self.format is Format.CUSTOM else Direction.TO_CUSTOM

    @property
    def table(self) -> Table:
        """The rows between this model's keys and those of the other format, HF keys as it spells them."""
        return spelled(self.described.family.table(self.described.dims.text), self.spelling)

    @property
    def dtype(self) -> str:
        """Torch's name of the dtype that most elements have."""
        sizes = dict.fromkeys(_TORCH_NAMES, 0)
        for spec in self.specs.values():
            if spec.dtype in sizes:
                sizes[spec.dtype] += spec.elements
        return _TORCH_NAMES[max(sizes, key=sizes.__getitem__)]


def read_model(directory: Path, reference: Path | None = None) -> Model:
    """Read headers, index, config.json and sidecar of ``directory``; no tensor data.

    ``reference`` is a model of the other format that tells what this one's cannot; without it a
    sidecar in ``directory`` does. Raises a BridgeError for anything that is not an InternVL checkpoint.
    """
    config = read_config(directory)
    wanted = detect_format(config).other
    checkpoint = open_checkpoint(directory)
    specs = specs_of(checkpoint)
    complement = read_sidecar(directory, wanted) if reference is None else _reference(reference, wanted, directory)
    twin = complement.described.family if complement is not None else None
    described = describe(config, specs, twin)
    if complement is not None and twin is not None and twin.hf_model_type != described.family.hf_model_type:
        raise ConfigError(
            f"{config.path} describes a model with {described.family.name}, but {complement.origin} is of one with "
            f"{twin.name}.",
            "Give the reference that belongs to this checkpoint, or remove a sidecar that does not.",
        )
    spelling = L1 if wanted is Format.HF else spelling_of(specs)
    return Model(directory, described, checkpoint, specs, spelling, complement)


def plan_conversion(model: Model) -> CheckedPlan:
    """The plan that converts ``model`` into the other format, checked against config.json and proved.

    Raises what :func:`internvl_bridge.checked_plan.checked_plan` raises, and UnsupportedModelError for
    dtypes that mean quantised weights.
    """
    checked = checked_plan(model.described, model.specs, model.direction, model.spelling)
    for key, spec in model.specs.items():
        packed = checked.mxfp4 and key.endswith(("_blocks", "_scales"))
        if (spec.dtype == "U8") if packed else (spec.dtype in _TORCH_NAMES):
            continue
        raise UnsupportedModelError(
            f"{key} has dtype {spec.dtype}: either the checkpoint is quantised, or the tensor is no weight.",
            "Convert a checkpoint in BF16, F16, F32 or F64 (GPT-OSS experts may be MXFP4 blocks in U8).",
        )
    return checked


def _reference(reference: Path, wanted: Format, directory: Path) -> Complement:
    keys = open_checkpoint(reference).tensors if has_weights(reference) else ()
    try:
        sidecar = read_sidecar(directory, wanted)
    except BridgeError:  # the reference takes its place
        sidecar = None
    return reference_complement(read_config(reference), wanted, keys, sidecar)
