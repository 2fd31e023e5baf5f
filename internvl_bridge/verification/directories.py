"""Compare the weights of two checkpoint directories, of the same or of different formats."""

from collections.abc import Mapping
from pathlib import Path

from internvl_bridge.checkpoint.byte_ranges import target_tensors
from internvl_bridge.checkpoint.model import Model, Source, read_model
from internvl_bridge.checkpoint.weights import open_weights, same_bits_in, stored_plan, tensor_locations, whole_specs
from internvl_bridge.errors import CheckpointError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.plan import Plan, TensorSpec, identity
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.metadata.json_files import CONFIG_FILE
from internvl_bridge.places.fetching import fetched
from internvl_bridge.planning.output_head import output_head, plan_with_head, specs_to_plan
from internvl_bridge.verification.tensors import Comparison, compare
from internvl_bridge.work.log import LOG
from internvl_bridge.work.progress import Progress, silent
from internvl_bridge.work.workers import check_workers


def verify(
    left: str | Path,
    right: str | Path,
    *,
    workers: int | None = None,
    ignore_dtype: bool = False,
    distributions: bool = False,
    progress: Progress = silent,
) -> Comparison:
    """Compare every tensor of ``left`` with ``right``, under the names that it has in ``right``.

    Works across formats, HF spellings and containers. Directories without a config.json are compared key by key. If
    config.json calls the model tied, one side may store a copy of the input embeddings as output head: that is not a
    difference.

    Args:
        left: Directory of a checkpoint, or its place on the hub (``hf://owner/name``), which is downloaded.
        right: Directory of another one, of the same or of the other format.
        workers: Files to read at a time. By default one for each core, at most four.
        ignore_dtype: Compare tensors of different dtypes by their values, in float64, as after a cast. Then
            ``equal`` ones have the same values.
        distributions: Count the differences of single elements, too, by powers of two. Tensors that differ then take
            about twice as long.
        progress: As for :func:`internvl_bridge.to_hf`.

    Returns:
        The tensors that are equal, different, missing, unexpected or mismatched, and the L2 distance.

    Raises:
        CheckpointError: One of them is not a checkpoint.
        TensorError: A tensor of one has no name in the format of the other.

    Example:
        >>> import internvl_bridge
        >>> comparison = internvl_bridge.verify("InternVL3_5-8B", "my-finetune-HF")
        >>> comparison.identical, comparison.l2
        (True, 0.0)
    """
    LOG.info("verify: %s with %s", left, right)
    found = compare_models(
        fetched(left).directory,
        fetched(right).directory,
        check_workers(workers),
        progress,
        ignore_dtype=ignore_dtype,
        distributed=distributions,
    )
    LOG.info("verify: %s and %s are %s", left, right, "identical" if found.identical else "different")
    return found


def compare_models(
    left: Path,
    right: Path,
    workers: int,
    progress: Progress,
    *,
    ignore_dtype: bool = False,
    distributed: bool = False,
) -> Comparison:
    """As :func:`verify`."""
    if (left / CONFIG_FILE).exists() and (right / CONFIG_FILE).exists():
        ours, theirs = _read(left), _read(right)
        mine, other, plan = ours.weights, theirs.weights, _plan(ours, theirs)
    else:
        mine, other = (open_weights(path, lambda _: True) for path in (left, right))
        plan = identity(whole_specs(mine))
    expected = target_tensors(stored_plan(plan, mine), mine.checkpoint)
    report = progress("Comparing", mine.checkpoint.data_bytes, len(other.checkpoint.shards))
    return compare(
        expected, tensor_locations(other), workers, report, ignore_dtype=ignore_dtype, distributed=distributed
    )


def _read(directory: Path) -> Model:
    try:
        return read_model(Source(directory))
    except CheckpointError as error:
        if "--state-dict" not in error.remedy and "--config" not in error.remedy:
            raise
        raise CheckpointError(error.reason, "Compare directories that hold config.json and one model.") from error


def _plan(ours: Model, theirs: Model) -> Plan:
    """Our tensors under the names that they have in the other directory.

    An output head that only one side stores is not a difference if it copies the input embeddings.
    """
    known = ours if ours.format is Format.CUSTOM else theirs  # HF's class serves several custom ones
    route = Route(known.description.family, known.description.dims.text, ours.keys, theirs.keys)
    here, there = (tied_head(route.family, route.dims, keys) for keys in (ours.keys, theirs.keys))
    stores_copy = there.head in theirs.specs
    is_tied = ours.description.may_be_tied or theirs.description.may_be_tied
    if not is_tied or (here.head in ours.specs) == stores_copy:
        return _plan_along(route, ours.specs)
    head = output_head(here, ours.specs, same_bits_in(ours.weights), may_be_tied=True)
    plan = _plan_along(route, specs_to_plan(head, here, ours.specs, stores_copy=stores_copy))
    return plan_with_head(head, there, plan, stores_copy=stores_copy)


def _plan_along(route: Route, specs: Mapping[str, TensorSpec]) -> Plan:
    """As :func:`plan_route`, also between two directories of one spelling."""
    return identity(specs) if route.source == route.target else plan_route(route, specs)
