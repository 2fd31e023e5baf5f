"""Compare the weights of two checkpoint directories, of the same or of different formats."""

from pathlib import Path

from internvl_bridge.checkpoint.byte_ranges import target_tensors
from internvl_bridge.checkpoint.model import Model, read_model
from internvl_bridge.checkpoint.weights import open_weights, same_bits, stored_plan, tensor_locations, whole_specs
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.plan import Plan, identity
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.metadata.config.file import CONFIG_FILE
from internvl_bridge.verification.tensors import Comparison, compare
from internvl_bridge.work.progress import Progress, silent
from internvl_bridge.work.workers import check_workers


def verify(
    left: str | Path, right: str | Path, *, workers: int | None = None, progress: Progress = silent
) -> Comparison:
    """Compare every tensor of ``left`` with ``right``, under the names that it has in ``right``.

    Works across formats, HF spellings and containers. An output head that only one side stores, and that is a copy
    of the input embeddings, is no difference if config.json calls the model tied. Directories without a config.json
    are compared key by key. ``workers`` files are read at a time. Raises a BridgeError if one of them is not a
    checkpoint, or if a tensor of one has no name in the other's format.
    """
    return compare_models(Path(left), Path(right), check_workers(workers), progress)


def compare_models(left: Path, right: Path, workers: int, progress: Progress) -> Comparison:
    """As :func:`verify`."""
    if (left / CONFIG_FILE).exists() and (right / CONFIG_FILE).exists():
        ours, theirs = read_model(left), read_model(right)
        mine, other, plan = ours.weights, theirs.weights, _plan(ours, theirs)
    else:
        mine, other = (open_weights(path, lambda _: True) for path in (left, right))
        plan = identity(whole_specs(mine))
    expected = target_tensors(stored_plan(plan, mine), mine.checkpoint)
    return compare(expected, tensor_locations(other), workers, progress("Comparing", mine.checkpoint.data_bytes))


def _plan(ours: Model, theirs: Model) -> Plan:
    """Our tensors under the names that they have in the other directory.

    An output head that only one side stores, and that is a copy of the input embeddings, is no difference.
    """
    known = ours if ours.format is Format.CUSTOM else theirs  # HF does not tell InternLM2 from Llama
    route = Route(known.description.family, known.description.dims.text, ours.keys, theirs.keys)
    here, there = (tied_head(route.family, route.dims, keys) for keys in (ours.keys, theirs.keys))
    stored = (here.head in ours.specs, there.head in theirs.specs)
    tied = ours.description.may_be_tied or theirs.description.may_be_tied
    specs = ours.specs
    if tied and stored == (True, False) and same_bits(ours.weights, here.head, here.embeddings):
        specs = here.dropped(specs)
    plan = identity(specs) if route.source == route.target else plan_route(route, specs)
    return there.copied(plan) if tied and stored == (False, True) and there.embeddings in plan.recipes else plan
