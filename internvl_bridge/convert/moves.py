"""What a conversion does with every tensor, as values that its report keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_bridge.checkpoint.opened_weights import OpenedWeights
from internvl_bridge.mapping.plan import Plan, TensorSpec
from internvl_bridge.storage.header import Entry
from internvl_bridge.storage.output_shards import OutputShard
from internvl_bridge.storage.source_shards import Shard

if TYPE_CHECKING:
    from internvl_bridge.checkpoint.computed_tensors import ComputedTensor


@dataclass(frozen=True, slots=True)
class Moves:
    """How the tensors of a checkpoint are made.

    ``plan`` starts from the whole tensors of ``weights``. ``shards`` are the output's files. ``computed`` are the
    tensors that are computed, and ``adapters`` the files of the adapters that are merged.
    """

    plan: Plan
    weights: OpenedWeights
    shards: tuple[OutputShard, ...]
    computed: Mapping[str, "ComputedTensor"]
    adapters: tuple[Shard, ...]

    @property
    def specs(self) -> dict[str, TensorSpec]:
        """What every tensor of the output is."""
        computed = {key: TensorSpec(made.dtype, made.shape) for key, made in self.computed.items()}
        return {**self.plan.targets, **computed}


@dataclass(frozen=True, slots=True)
class AdapterMoves:
    """How the tensors of an adapter are made: what they are, and the keys of those that each is made of."""

    entries: Mapping[str, Entry]
    sources: Mapping[str, tuple[str, ...]]
