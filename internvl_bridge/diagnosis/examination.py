"""Examine a directory, whatever it holds."""

from dataclasses import replace
from pathlib import Path

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.checkpoint.looking import looked_at, whole
from internvl_bridge.convert.options import Options, check_kind
from internvl_bridge.diagnosis.adapters import examined_adapter
from internvl_bridge.diagnosis.checkpoints import examined_checkpoint
from internvl_bridge.diagnosis.findings import Diagnosis
from internvl_bridge.diagnosis.weights import Reading
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.work.progress import Progress, silent
from internvl_bridge.work.workers import check_workers


def diagnose(
    path: str | Path,
    *,
    config: str | Path | None = None,
    state_dict: str | None = None,
    base: str | Path | None = None,
    deep: bool = False,
    workers: int | None = None,
    progress: Progress = silent,
) -> Diagnosis:
    """Find what is wrong or odd about a checkpoint, an adapter or a trainer's directory.

    Makes the checks of a conversion, and goes on after a refusal as far as that makes sense. Reads headers and small
    files. As a conversion, it also reads some rows where only these show what happened to an output head or to experts.

    Args:
        path: Directory of a checkpoint or an adapter, of either format, or its place on the hub (``hf://owner/name``).
        config: Directory of its config.json and tokenizer, if they are not in ``path``.
        state_dict: Which model is meant, where ``path`` holds several.
        base: Directory of the base model of an adapter. By default the one that it names.
        deep: Also read all weights: compare them with recorded checksums, and look for values that are not weights.
        workers: Files to read at a time. By default one for each core, at most four.
        progress: As for :func:`internvl_bridge.to_hf`.

    Returns:
        What was found, the worst first, with what to do about it. Also what was not checked.

    Raises:
        CheckpointError: ``path``, ``config`` or ``base`` is not a directory.
        OptionError: An option does not apply to what ``path`` holds.

    Example:
        >>> import internvl_bridge
        >>> internvl_bridge.diagnose("InternVL3_5-8B").healthy
        True
    """
    for place in (config, base):
        if place is not None and not Path(place).is_dir():
            raise not_a_directory(Path(place))
    reading, options = Reading(deep, check_workers(workers), progress), Options(config, state_dict, base=base)
    with whole(path) if deep else looked_at(path) as look:
        if not look.directory.is_dir():
            raise not_a_directory(look.directory)
        is_adapter = is_adapter_directory(look.directory)
        check_kind(options, is_adapter=is_adapter)
        found = (examined_adapter if is_adapter else examined_checkpoint)(look.directory, options, reading)
    return replace(found, path=look.name)
