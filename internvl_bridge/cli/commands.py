"""What each command of the command line does: call the library, and answer."""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import typer

from internvl_bridge.checkpoint.adapter_inspection import inspect_adapter
from internvl_bridge.checkpoint.adapter_report import adapter_report
from internvl_bridge.checkpoint.adapters import is_adapter_directory
from internvl_bridge.checkpoint.inspection import inspect as inspect_checkpoint
from internvl_bridge.checkpoint.inspection_report import inspection_report
from internvl_bridge.cli.abandoned_reports import abandoned_as_json, abandoned_lines
from internvl_bridge.cli.answers import Answer, PrintOptions, answer
from internvl_bridge.cli.release_reports import release_report, releases_as_json
from internvl_bridge.cli.terminal import DIFFERS, progress_bar, warn
from internvl_bridge.convert.adapter_plan_report import adapter_plan, adapter_plan_as_json
from internvl_bridge.convert.adapters import AdapterConversion, prepare_adapter
from internvl_bridge.convert.computation_plan_report import computation_plan
from internvl_bridge.convert.consumable import consumable
from internvl_bridge.convert.conversion_report import conversion_report
from internvl_bridge.convert.disk_budget import Budget, budget_of, check_room
from internvl_bridge.convert.identity import identity_of
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.plan_report import plan_as_json, plan_report
from internvl_bridge.convert.prepare import Conversion, prepare
from internvl_bridge.convert.run import carry_out
from internvl_bridge.convert.run_adapter import budget_of_adapter, carry_out_adapter
from internvl_bridge.errors import BridgeError, OptionError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.file import detect_format, read_config
from internvl_bridge.pages.checksum_page import checksum_page
from internvl_bridge.pages.comparison_page import comparison_page
from internvl_bridge.pages.conversion_page import conversion_page
from internvl_bridge.pages.plan_page import adapter_plan_page, plan_page
from internvl_bridge.reporting.sizes import human_size, parse_size
from internvl_bridge.storage.abandoned import abandoned_outputs, remove_abandoned
from internvl_bridge.storage.output_place import partial_path
from internvl_bridge.storage.publishing import finished_files
from internvl_bridge.verification.checksum_report import checksum_report
from internvl_bridge.verification.checksums import verify_checksums
from internvl_bridge.verification.comparison_report import comparison_report
from internvl_bridge.verification.directories import verify as verify_checkpoints
from internvl_bridge.verification.tensor_difference import Sort

_FORMATS = {
    "to-hf": (Format.CUSTOM, Format.HF),
    "to-custom": (Format.HF, Format.CUSTOM),
    "repair": (Format.HF, Format.HF),
}
"""The formats that a command converts from and into."""
_SMALLEST_SHARD = 1_000_000
"""Bytes."""


def convert(
    command: str,
    source: Path,
    output: Path,
    options: Options,
    execution: Execution,
    show: PrintOptions,
) -> None:
    """Carry ``command`` out, one of those that convert, or say what it would do."""

    def work() -> Answer:
        if is_adapter_directory(source):
            return _convert_adapter(source, output, _FORMATS[command], options, execution, show)
        check_shard_size(options, execution)
        conversion = prepare(source, output, _FORMATS[command], options, execution)
        say_warnings(conversion.warnings)
        if show.dry_run:
            return planned(conversion)
        if execution.consume and not show.yes:
            confirm_consuming(conversion, show)
        if not show.quiet:
            announce(conversion)
        with progress_bar(quiet=show.quiet) as progress:
            report = carry_out(conversion, progress)
        say_warnings(report.warnings[len(conversion.warnings) :])  # what only the bytes show
        return Answer(
            "conversion",
            report.as_json,
            lambda: conversion_report(report, every=show.verbose, warned=True),
            lambda: conversion_page(report),
            0 if report.ok else DIFFERS,
        )

    answer(command, work, show, output)


def plan(
    source: Path, output: Path | None, options: Options, execution: Execution, show: PrintOptions, *, repair: bool
) -> None:
    """Say what converting ``source`` into the other format, or a repair, would do and cost."""

    def work() -> Answer:
        if is_adapter_directory(source):
            return _plan_adapter(source, output, options, execution, repair=repair)
        check_shard_size(options, execution)
        accepted = detect_format(read_config(source if options.config is None else Path(options.config)))
        wanted = accepted if repair else next(format_ for format_ in Format if format_ is not accepted)
        place = output or source.absolute().with_name(f"{source.absolute().name}-{wanted.value}")
        conversion = prepare(source, place, (Format.HF if repair else accepted, wanted), options, execution)
        say_warnings(conversion.warnings)
        return planned(conversion)

    answer("plan", work, show, output)


def _convert_adapter(
    source: Path,
    output: Path,
    formats: tuple[Format, Format],
    options: Options,
    execution: Execution,
    show: PrintOptions,
) -> Answer:
    conversion = prepare_adapter(source, output, formats, options, execution)
    say_warnings(conversion.warnings)
    if show.dry_run:
        return _planned_adapter(conversion)
    with progress_bar(quiet=show.quiet) as progress:
        report = carry_out_adapter(conversion, progress)
    return Answer(
        "conversion",
        report.as_json,
        lambda: conversion_report(report, every=show.verbose, warned=True),
        lambda: conversion_page(report),
    )


def _plan_adapter(source: Path, output: Path | None, options: Options, execution: Execution, *, repair: bool) -> Answer:
    found = inspect_adapter(source, base=options.base)
    accepted = Format.CUSTOM if found.format == Format.CUSTOM.value and not repair else Format.HF
    wanted = Format.HF if repair else accepted.other
    place = output or source.absolute().with_name(f"{source.absolute().name}-{wanted.value}")
    conversion = prepare_adapter(source, place, (accepted, wanted), options, execution)
    say_warnings(conversion.warnings)
    return _planned_adapter(conversion)


def _planned_adapter(conversion: AdapterConversion) -> Answer:
    budget = budget_of_adapter(conversion)
    return Answer(
        "adapter_plan",
        lambda: adapter_plan_as_json(conversion, budget),
        lambda: adapter_plan(conversion, budget),
        lambda: adapter_plan_page(conversion, budget),
        refusal=_lack_of_room(budget, conversion.output),
    )


@dataclass(frozen=True, slots=True)
class Comparing:
    """How two checkpoints are compared, and how much of what changed is shown."""

    workers: int | None
    base: Path | None
    ignore_dtype: bool
    top: int
    sort: Sort


def verify(left: Path, right: Path | None, how: Comparing, show: PrintOptions) -> None:
    """Compare two checkpoints, or the files of one with their checksums."""

    def compare_checksums() -> Answer:
        with progress_bar(quiet=show.quiet) as progress:
            found = verify_checksums(left, workers=how.workers, progress=progress)
        return Answer(
            "checksums",
            found.as_json,
            lambda: checksum_report(found),
            lambda: checksum_page(found),
            0 if found.intact else DIFFERS,
        )

    def compare_tensors(other: Path) -> Answer:
        if is_adapter_directory(left) and is_adapter_directory(other):
            return _compare_adapters(left, other, how, verbose=show.verbose)
        with progress_bar(quiet=show.quiet) as progress:
            found = verify_checkpoints(
                left,
                other,
                workers=how.workers,
                ignore_dtype=how.ignore_dtype,
                distributions=show.report is not None,
                progress=progress,
            )
        return Answer(
            "comparison",
            found.as_json,
            lambda: comparison_report(found, top=how.top, sort=how.sort, every=show.verbose),
            lambda: comparison_page(found, str(left), str(other)),
            0 if found.identical else DIFFERS,
        )

    answer("verify", compare_checksums if right is None else lambda: compare_tensors(right), show)


def _compare_adapters(left: Path, right: Path, how: Comparing, *, verbose: bool) -> Answer:
    if how.ignore_dtype:
        raise OptionError(
            "Adapters are compared by what they do to the weights, whatever their dtypes.", "Leave out --ignore-dtype."
        )
    # They import torch.
    from internvl_bridge.pages.adapter_comparison_page import adapter_comparison_page  # noqa: PLC0415
    from internvl_bridge.verification.adapter_comparison_report import adapter_comparison_report  # noqa: PLC0415
    from internvl_bridge.verification.adapters import verify_adapters  # noqa: PLC0415

    found = verify_adapters(left, right, base=how.base)
    return Answer(
        "adapter_comparison",
        found.as_json,
        lambda: adapter_comparison_report(found, how.top, how.sort, every=verbose),
        lambda: adapter_comparison_page(found, str(left), str(right)),
        0 if found.identical else DIFFERS,
    )


def inspect(path: Path, config: Path | None, state_dict: str | None, base: Path | None, show: PrintOptions) -> None:
    """Describe a checkpoint, or an adapter."""

    def work() -> Answer:
        if is_adapter_directory(path):
            adapter = inspect_adapter(path, base=base)
            return Answer("adapter", adapter.as_json, lambda: adapter_report(adapter))
        found = inspect_checkpoint(path, config=config, state_dict=state_dict)
        return Answer("inspection", found.as_json, lambda: inspection_report(found))

    answer("inspect", work, show)


def clean(directory: Path, *, remove: bool, as_json: bool) -> None:
    """List what runs have left in ``directory`` and work on no more, and remove it if that is wanted."""

    def work() -> Answer:
        found = abandoned_outputs(directory)
        removed = [left for left in found if remove and left.reason_to_keep is None]
        for left in removed:
            remove_abandoned(left)
        return Answer(
            "abandoned",
            lambda: abandoned_as_json(found, removed),
            lambda: abandoned_lines(directory, found, removed, time.time()),
        )

    answer("clean", work, PrintOptions(as_json=as_json, verbose=False, quiet=False))


def models(*, as_json: bool) -> None:
    """Say which releases are known."""

    def work() -> Answer:
        return Answer("models", releases_as_json, release_report)

    answer("models", work, PrintOptions(as_json=as_json, verbose=False, quiet=False))


def say_warnings(warnings: Iterable[str]) -> None:
    """Say what should stop somebody."""
    for warning in warnings:
        warn(f"Warning: {warning}")


def confirm_consuming(conversion: Conversion, show: PrintOptions) -> None:
    """Ask whether the source shall be deleted. Raises OptionError unless somebody says yes."""
    files = [shard for shard in consumable(conversion.model) if not shard.is_gone]
    size = human_size(sum(shard.stamp.size for shard in files))
    what = f"--consume deletes {len(files)} file(s) of weights ({size}) in {conversion.model.source.weights}"
    if show.as_json or not has_terminal():
        raise OptionError(f"{what}, and there is no terminal to ask.", "Add --yes if that is meant.")
    warn(f"{what}, each when {conversion.output} has its tensors, read back and compared.")
    if not typer.confirm("Go on?", err=True):
        raise OptionError(f"{what}, and the answer was no.", "Nothing was done. Convert without --consume.")


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def announce(conversion: Conversion) -> None:
    """Say on stderr that an earlier run is gone on with."""
    if conversion.execution.restart or not partial_path(conversion.output).exists():
        return
    names = {shard.name for shard in conversion.shards}
    kept = [name for name in finished_files(conversion.output, identity_of(conversion)) if name in names]
    if kept:
        warn(f"Resuming: {len(kept)} of {len(names)} files are done.")


def check_shard_size(options: Options, execution: Execution) -> None:
    """Refuse what is most often a size without its unit: it would make very many files."""
    stated = options.max_shard_size
    if stated is None or "small-shards" in execution.accept:
        return
    size = parse_size(stated)
    if size < _SMALLEST_SHARD:
        raise OptionError(
            f"--max-shard-size {stated} means files of {human_size(size)} each.",
            "Give the unit, as in 5GB, or add --accept small-shards.",
        )


def budget_now(conversion: Conversion) -> Budget:
    """What ``conversion`` costs, if it goes on where an earlier run was stopped."""
    return budget_of(
        conversion,
        [] if conversion.execution.restart else finished_files(conversion.output, identity_of(conversion)),
    )


def planned(conversion: Conversion) -> Answer:
    """What ``conversion`` would do, and the refusal of what does not fit on the disk."""
    return planned_within(conversion, budget_now(conversion))


def planned_within(conversion: Conversion, budget: Budget) -> Answer:
    """As :func:`planned`, of which the ``budget`` is known."""
    computation = conversion.computation
    return Answer(
        "plan",
        lambda: plan_as_json(conversion, budget),
        lambda: (
            plan_report(conversion, budget)
            if computation is None
            else computation_plan(conversion, computation, budget)
        ),
        lambda: plan_page(conversion, budget),
        refusal=_lack_of_room(budget, conversion.output),
    )


def _lack_of_room(budget: Budget, output: Path) -> BridgeError | None:
    try:
        check_room(budget, output)
    except BridgeError as error:
        return error
    return None
