"""Compare the weights of two checkpoint directories, of the same or of different formats."""

from pathlib import Path

from internvl_bridge.byte_plan import specs_of, target_tensors
from internvl_bridge.mapping.plan import Plan, identity
from internvl_bridge.mapping.planning import Direction, make_plan
from internvl_bridge.mapping.spellings import respell, spelled
from internvl_bridge.metadata.config_file import CONFIG_FILE, Format
from internvl_bridge.model import Model, read_model
from internvl_bridge.progress import Progress, silent
from internvl_bridge.storage.checkpoint import open_checkpoint
from internvl_bridge.verification import Comparison, compare


def verify(left: str | Path, right: str | Path, *, progress: Progress = silent) -> Comparison:
    """Compare every tensor of ``left`` with ``right``, under the names that it has in ``right``.

    Works across formats and HF spellings. Directories without a config.json are compared key by key.
    Raises a BridgeError if one of them is not a checkpoint, or if a tensor of one has no name in the
    other's format.
    """
    return compare_models(Path(left), Path(right), progress)


def compare_models(left: Path, right: Path, progress: Progress) -> Comparison:
    """As :func:`verify`."""
    if (left / CONFIG_FILE).exists() and (right / CONFIG_FILE).exists():
        ours, theirs = read_model(left), read_model(right)
        checkpoint, other, plan = ours.checkpoint, theirs.checkpoint, _plan(ours, theirs)
    else:
        checkpoint, other = open_checkpoint(left), open_checkpoint(right)
        plan = identity(specs_of(checkpoint))
    targets = target_tensors(plan, checkpoint)
    return compare(targets, other, progress("Comparing", checkpoint.data_bytes))


def _plan(ours: Model, theirs: Model) -> Plan:
    """Our tensors under the names that they have in the other directory."""
    match ours.format, theirs.format:
        case Format.CUSTOM, Format.CUSTOM:
            return identity(ours.specs)
        case Format.HF, Format.HF:
            return respell(ours.specs, ours.spelling, theirs.spelling)
        case Format.CUSTOM, _:
            table = spelled(ours.table, theirs.spelling)
            return make_plan(table, ours.specs, Direction.TO_HF)
        case _:
            table = spelled(theirs.table, ours.spelling)
            return make_plan(table, ours.specs, Direction.TO_CUSTOM)
