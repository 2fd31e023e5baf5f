"""What a run computes beside what it copies, and what came of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.checkpoint.computed_tensors import ComputedTensor
from internvl_bridge.mapping.lora.factors import Scaling
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.source_shards import Shard


@dataclass(frozen=True, slots=True)
class Computation:
    """The ``tensors`` of an output that are computed, by key.

    ``modules`` are those that adapters are merged into, and how each product is scaled. ``shards`` are the files of
    adapters, and ``crcs`` the CRC-32 that they state. ``dtype`` is what weights are cast to, None if they keep theirs.
    """

    tensors: Mapping[str, ComputedTensor]
    modules: Mapping[str, tuple[Scaling, ...]]
    shards: tuple[Shard, ...]
    crcs: Mapping[ByteRange, int]
    dtype: str | None

    @property
    def files(self) -> dict[Path, ComputedTensor]:
        """The computed tensors by the paths that stand for them."""
        return {tensor.path: tensor for tensor in self.tensors.values()}

    def depending_on(self, files: Iterable[Path]) -> set[Path]:
        """``files``, and what stands for the tensors that are computed from any of them."""
        known = {*files}
        return known | {path for path, tensor in self.files.items() if not known.isdisjoint(tensor.read_from)}


@dataclass(frozen=True, slots=True)
class PartRounding:
    """What rounding did to a part of the model: the largest relative error, the key that has it, what became zero."""

    error: float
    key: str
    vanished: int


@dataclass(frozen=True, slots=True)
class Computed:
    """What was computed: how many ``tensors``, and the merged ``modules`` with what each product was multiplied by.

    ``dtype`` is what weights were cast to, None if they kept their own. ``roundings`` say, by part of the model, what
    that did.
    """

    tensors: int
    modules: Mapping[str, tuple[float, ...]]
    dtype: str | None
    roundings: Mapping[str, PartRounding]

    def as_json(self) -> dict[str, Any]:
        """The same as values that :func:`json.dumps` takes."""
        return {
            "tensors": self.tensors,
            "modules": {name: list(scales) for name, scales in self.modules.items()},
            "dtype": self.dtype,
            "roundings": {
                part: {"largest_relative_error": found.error, "key": found.key, "became_zero": found.vanished}
                for part, found in self.roundings.items()
            },
        }
