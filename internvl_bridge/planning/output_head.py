"""What an output head is: the presence of its tensor decides, and its bits."""

from collections.abc import Callable, Mapping
from enum import Enum

from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.spellings import KeySpelling
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.metadata.config.description import ModelDescription

SameBits = Callable[[str, str], bool]
"""Whether two tensors, which agree in dtype and shape, agree in every bit."""


class OutputHead(Enum):
    """OWN: a tensor of its own. SHARED: there is none, the input embeddings serve. COPY: a tensor that copies them."""

    OWN = "own"
    SHARED = "shared"
    COPY = "copy"


def output_head(
    model: ModelDescription, specs: Mapping[str, TensorSpec], keys: KeySpelling, same_bits: SameBits
) -> OutputHead:
    """What the output head is among tensors of ``specs``, with keys spelled as ``keys``.

    Only a tensor that config.json calls tied can be a copy; whether it is, its bits tell.
    """
    tie = tied_head(model.family, model.dims.text, keys)
    if tie.head not in specs:
        return OutputHead.SHARED
    alike = model.may_be_tied and specs.get(tie.embeddings) == specs[tie.head]
    return OutputHead.COPY if alike and same_bits(tie.head, tie.embeddings) else OutputHead.OWN
