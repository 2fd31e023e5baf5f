"""What a source turned out to be: its container, its spelling, its output head."""

from dataclasses import dataclass

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.mapping.formats import Format
from internvl_bridge.planning.output_head import OutputHead


@dataclass(frozen=True, slots=True)
class Findings:
    """What a checkpoint is, from its headers and config.json.

    ``container``: "safetensors", "pytorch_model.bin" or "torch.distributed.checkpoint". ``spelling`` is that of
    HF keys, None for custom ones. ``head``: "own", "shared" (the input embeddings serve as output head) or "copy"
    (so they do, and are stored twice). ``saved_by``: the version of transformers that wrote an HF config.json, None
    where it does not say.
    """

    container: str
    format: str
    spelling: str | None
    head: str
    saved_by: str | None


def findings(model: Model, head: OutputHead) -> Findings:
    """What ``model``, whose output head is ``head``, turned out to be."""
    saved_by = model.description.values.get("transformers_version") if model.format is Format.HF else None
    return Findings(
        container=model.weights.container,
        format=model.format.value,
        spelling=None if model.format is Format.CUSTOM else model.keys.name,
        head=head.value,
        saved_by=saved_by if isinstance(saved_by, str) else None,
    )
