"""What opening weights gives: stored pieces, and how they make up whole tensors. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from internvl_bridge.mapping.plan import Plan
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.output_shards import TargetTensor
from internvl_bridge.storage.source_shards import Checkpoint, StoredTensor

LocatedTensor = StoredTensor | TargetTensor
"""A tensor, and where its bytes lie."""

SAFETENSORS, PICKLED, DISTRIBUTED = "safetensors", "pytorch_model.bin", "torch.distributed.checkpoint"


@dataclass(frozen=True, slots=True)
class OpenedWeights:
    """The weights of a model: stored pieces, and how they make up whole tensors.

    ``assembly`` leads from the keys of ``checkpoint`` to those of the whole tensors; None where every tensor is whole.
    ``left_out`` names what a dump holds beside the model: optimizer states, counters. ``crcs`` are the CRC-32 that
    files state for parts of them. ``remarks`` say what was made of its keys. ``state_dict`` is the name of the state
    dict that was chosen among several, None if none was.
    """

    checkpoint: Checkpoint
    assembly: Plan | None
    left_out: tuple[str, ...] = ()
    container: str = SAFETENSORS
    crcs: Mapping[ByteRange, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    state_dict: str | None = None

    @property
    def has_shards(self) -> bool:
        """Whether its files are shards of the model, and not of each of its tensors."""
        return self.container != DISTRIBUTED
