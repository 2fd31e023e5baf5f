"""What each command of the command line does: call the library, and answer."""

import time
from collections.abc import Iterable
from pathlib import Path

from internvl_bridge.checkpoint.adapter_inspection import inspect_adapter
from internvl_bridge.checkpoint.adapters import is_adapter_directory
from internvl_bridge.checkpoint.inspection import inspect as inspect_checkpoint
from internvl_bridge.cli import adapter_reports, text_reports
from internvl_bridge.cli.abandoned_reports import abandoned_as_json, abandoned_lines
from internvl_bridge.cli.answers import Answer, PrintOptions, answer
from internvl_bridge.cli.arithmetic_reports import computation_plan_lines
from internvl_bridge.cli.release_reports import release_lines, releases_as_json
from internvl_bridge.cli.terminal import DIFFERS, progress_bar, warn
from internvl_bridge.convert.adapters import AdapterConversion, prepare_adapter
from internvl_bridge.convert.disk_budget import Budget, budget_of, check_room
from internvl_bridge.convert.identity import identity_of
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.prepare import Conversion, prepare
from internvl_bridge.convert.run import carry_out
from internvl_bridge.convert.run_adapter import budget_of_adapter, carry_out_adapter
from internvl_bridge.convert.sizes import human_size, parse_size
from internvl_bridge.errors import BridgeError, OptionError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.file import detect_format, read_config
from internvl_bridge.storage.abandoned import abandoned_outputs, remove_abandoned
from internvl_bridge.storage.output_place import partial_path
from internvl_bridge.storage.publishing import finished_files
from internvl_bridge.verification.checksums import verify_checksums
from internvl_bridge.verification.directories import verify as verify_checkpoints

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
        if not show.quiet:
            announce(conversion)
        with progress_bar(quiet=show.quiet) as progress:
            report = carry_out(conversion, progress)
        say_warnings(report.warnings[len(conversion.warnings) :])  # what only the bytes show
        return Answer(
            "conversion",
            report.as_json,
            lambda: text_reports.conversion_lines(report, verbose=show.verbose),
            0 if report.ok else DIFFERS,
        )

    answer(command, work, show)


def plan(
    source: Path, output: Path | None, options: Options, execution: Execution, *, repair: bool, as_json: bool
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

    answer("plan", work, PrintOptions(as_json=as_json, verbose=False, quiet=False))


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
    return Answer("conversion", report.as_json, lambda: text_reports.conversion_lines(report, verbose=show.verbose))


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
        lambda: adapter_reports.adapter_plan_as_json(conversion, budget),
        lambda: adapter_reports.adapter_plan_lines(conversion, budget),
        refusal=_lack_of_room(budget, conversion.output),
    )


def verify(left: Path, right: Path | None, workers: int | None, base: Path | None, show: PrintOptions) -> None:
    """Compare two checkpoints, or the files of one with their checksums."""

    def compare_checksums() -> Answer:
        with progress_bar(quiet=show.quiet) as progress:
            found = verify_checksums(left, workers=workers, progress=progress)
        lines = text_reports.checksum_lines(left, found)
        return Answer("checksums", found.as_json, lambda: lines, 0 if found.intact else DIFFERS)

    def compare_tensors(other: Path) -> Answer:
        if is_adapter_directory(left) and is_adapter_directory(other):
            return _compare_adapters(left, other, base, verbose=show.verbose)
        with progress_bar(quiet=show.quiet) as progress:
            found = verify_checkpoints(left, other, workers=workers, progress=progress)
        lines = text_reports.comparison_lines(found, verbose=show.verbose)
        return Answer("comparison", found.as_json, lambda: lines, 0 if found.identical else DIFFERS)

    answer("verify", compare_checksums if right is None else lambda: compare_tensors(right), show)


def _compare_adapters(left: Path, right: Path, base: Path | None, *, verbose: bool) -> Answer:
    from internvl_bridge.verification.adapters import verify_adapters  # imports torch  # noqa: PLC0415

    found = verify_adapters(left, right, base=base)
    return Answer(
        "adapter_comparison",
        found.as_json,
        lambda: adapter_reports.adapter_comparison_lines(found, verbose=verbose),
        0 if found.identical else DIFFERS,
    )


def inspect(path: Path, config: Path | None, state_dict: str | None, base: Path | None, show: PrintOptions) -> None:
    """Describe a checkpoint, or an adapter."""

    def work() -> Answer:
        if is_adapter_directory(path):
            adapter = inspect_adapter(path, base=base)
            return Answer("adapter", adapter.as_json, lambda: adapter_reports.adapter_lines(adapter))
        found = inspect_checkpoint(path, config=config, state_dict=state_dict)
        return Answer("inspection", found.as_json, lambda: text_reports.inspection_lines(found))

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
        return Answer("models", releases_as_json, release_lines)

    answer("models", work, PrintOptions(as_json=as_json, verbose=False, quiet=False))


def say_warnings(warnings: Iterable[str]) -> None:
    """Say what should stop somebody."""
    for warning in warnings:
        warn(f"Warning: {warning}")


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


def planned(conversion: Conversion) -> Answer:
    """What ``conversion`` would do, and the refusal of what does not fit on the disk."""
    kept = [] if conversion.execution.restart else finished_files(conversion.output, identity_of(conversion))
    budget, computation = budget_of(conversion, kept), conversion.computation
    return Answer(
        "plan",
        lambda: text_reports.plan_as_json(conversion, budget),
        lambda: (
            text_reports.plan_lines(conversion, budget)
            if computation is None
            else computation_plan_lines(conversion, computation, budget)
        ),
        refusal=_lack_of_room(budget, conversion.output),
    )


def _lack_of_room(budget: Budget, output: Path) -> BridgeError | None:
    try:
        check_room(budget, output)
    except BridgeError as error:
        return error
    return None
