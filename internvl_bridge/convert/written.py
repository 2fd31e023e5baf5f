"""What a run has written, before anything is said about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from internvl_bridge.storage.shard_jobs import WrittenShard
from internvl_bridge.storage.workspace import Workspace

if TYPE_CHECKING:
    from internvl_bridge.checkpoint.inspection import Inspection


@dataclass(frozen=True, slots=True)
class Written:
    """What a run has written: where, which files of weights, and what it found out about the source on the way.

    ``found`` is the inspection of the source, made before the output appears: an error in it must not come after that.
    """

    workspace: Workspace
    found: "Inspection"
    shards: Sequence[WrittenShard]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
