"""What a run has written, before anything is said about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from internvl_bridge.storage.shard_jobs import WrittenShard
from internvl_bridge.storage.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Written:
    """What a run has written: where, which files of weights, and what it found out about the source on the way."""

    workspace: Workspace
    shards: Sequence[WrittenShard]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
