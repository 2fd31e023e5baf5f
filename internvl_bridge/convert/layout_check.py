"""Whether the files that will be written hold what was planned, each tensor where its header says."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from internvl_bridge.errors import CheckpointError, ProofError
from internvl_bridge.storage.byte_range import coalesced
from internvl_bridge.storage.header import Header, parse_start
from internvl_bridge.storage.output_shards import OutputShard, TargetTensor


def check_layout(shards: Sequence[OutputShard], planned: Mapping[str, TargetTensor]) -> None:
    """Raise ProofError unless ``shards`` hold the ``planned`` tensors, and nothing else.

    The headers are parsed as those of files are. So a mistake in the layout of a file is found before the file exists.
    The jobs that write it need not know the plan.
    """
    if sorted(key for shard in shards for key in shard.keys) != sorted(planned):
        raise _misplaced("The output")
    for shard in shards:
        if not _is_right(shard, _header(shard), planned):
            raise _misplaced(shard.name)


def _header(shard: OutputShard) -> Header:
    try:
        return parse_start(Path(shard.name), shard.header, shard.size)
    except CheckpointError as error:
        raise _misplaced(shard.name) from error


def _is_right(shard: OutputShard, header: Header, planned: Mapping[str, TargetTensor]) -> bool:
    if tuple(header.entries) != shard.keys:
        return False
    targets = [planned[key] for key in shard.keys]
    stated = [(entry.dtype, entry.shape) for entry in header.entries.values()]
    ranges = coalesced(byte_range for target in targets for byte_range in target.ranges)
    return stated == [(target.dtype, target.shape) for target in targets] and ranges == shard.ranges


def _misplaced(what: str) -> ProofError:
    return ProofError(
        f"{what} would not hold the tensors that were planned.",
        "Nothing was written. This is a defect of internvl-bridge: please report it.",
    )
