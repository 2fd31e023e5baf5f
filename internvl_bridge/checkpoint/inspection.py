"""Say what a checkpoint directory holds, from its headers and config.json alone."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.model import Model, read_model
from internvl_bridge.checkpoint.model_plan import check_dtypes
from internvl_bridge.errors import BridgeError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.spellings import CUSTOM, MOST_COMPATIBLE
from internvl_bridge.planning.checked_plan import checked_plan


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is known about a checkpoint.

    ``container``: "safetensors", "pytorch_model.bin" or "torch.distributed.checkpoint". ``spelling`` is that of HF
    keys, None for custom ones. ``parameters`` counts elements of all tensors and ``dtypes`` those of each
    safetensors dtype. ``tied`` tells that there is no output head, so that the input embeddings serve; None if the
    checkpoint cannot be planned. ``refusal`` says why it cannot be converted,
    None if it can.
    """

    path: str
    format: str
    container: str
    spelling: str | None
    family: str
    architecture: str
    tower: str
    vision_layers: int
    text_layers: int
    experts: int | None
    tensors: int
    parameters: int
    bytes: int
    dtypes: Mapping[str, int]
    shards: int
    tied: bool | None
    refusal: str | None

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return asdict(self)


def inspect(path: str | Path) -> Inspection:
    """Describe the checkpoint directory ``path``; reads no tensor data.

    Raises a BridgeError if it is not an InternVL checkpoint at all.
    """
    model = read_model(Path(path))
    tied, refusal = _planned(model)
    dtypes: Counter[str] = Counter()
    for tensor in model.checkpoint.tensors.values():
        dtypes[tensor.dtype] += prod(tensor.shape)
    family, dims = model.description.family, model.description.dims
    text = dims.text
    return Inspection(
        path=str(path),
        format=model.format.value,
        container=model.weights.container,
        spelling=None if model.format is Format.CUSTOM else model.keys.name,
        family=family.name,
        architecture=family.architecture if model.format is Format.CUSTOM else family.hf_model_type,
        tower=dims.vision.kind,
        vision_layers=dims.vision.layers,
        text_layers=text.layers,
        experts=text.experts.experts if text.experts else None,
        tensors=len(model.specs),
        parameters=dtypes.total(),
        bytes=model.checkpoint.data_bytes,
        dtypes=dict(dtypes.most_common()),
        shards=len(model.checkpoint.shards),
        tied=tied,
        refusal=refusal,
    )


def _planned(model: Model) -> tuple[bool | None, str | None]:
    target = MOST_COMPATIBLE if model.format is Format.CUSTOM else CUSTOM
    try:
        checked = checked_plan(model.description, model.specs, model.keys, target)
        check_dtypes(model, mxfp4=checked.mxfp4)
    except BridgeError as error:
        return None, str(error)
    return checked.tied, None
