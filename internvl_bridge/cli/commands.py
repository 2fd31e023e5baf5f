"""What each command of the command line does: call the library, print, choose the exit code."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from internvl_bridge.checkpoint.inspection import inspect as inspect_checkpoint
from internvl_bridge.cli import text_reports
from internvl_bridge.cli.terminal import DIFFERS, exit_codes, progress_bar, say, warn
from internvl_bridge.convert.disk_budget import budget_of, check_room
from internvl_bridge.convert.identity import identity_of
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.prepare import Conversion, prepare
from internvl_bridge.convert.run import carry_out
from internvl_bridge.convert.sizes import human_size, parse_size
from internvl_bridge.errors import OptionError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.file import detect_format, read_config
from internvl_bridge.storage.publishing import finished_files, partial_path
from internvl_bridge.verification.checksums import verify_checksums
from internvl_bridge.verification.directories import verify as verify_checkpoints

_SMALLEST_SHARD = 1_000_000
"""Bytes."""


@dataclass(frozen=True, slots=True)
class PrintOptions:
    """How results are printed."""

    as_json: bool
    verbose: bool
    quiet: bool
    dry_run: bool = False


def convert(
    source: Path,
    output: Path,
    formats: tuple[Format, Format],
    options: Options,
    execution: Execution,
    show: PrintOptions,
) -> None:
    """Convert ``source`` from the first format into the second, or say what would be done."""
    with exit_codes():
        _check_shard_size(options, execution)
        conversion = prepare(source, output, formats, options, execution)
        if show.dry_run:
            _print_plan(conversion, show)
            return
        if not show.quiet:
            _announce(conversion)
        with progress_bar(quiet=show.quiet) as progress:
            report = carry_out(conversion, progress)
        _print(report.as_json, lambda: text_reports.conversion_lines(report, verbose=show.verbose), show)
        if not report.ok:
            raise typer.Exit(DIFFERS)


def plan(
    source: Path, output: Path | None, options: Options, execution: Execution, *, repair: bool, as_json: bool
) -> None:
    """Say what converting ``source`` into the other format, or a repair, would do and cost."""
    with exit_codes():
        _check_shard_size(options, execution)
        accepted = detect_format(read_config(source))
        wanted = accepted if repair else next(format_ for format_ in Format if format_ is not accepted)
        output = output or source.absolute().with_name(f"{source.absolute().name}-{wanted.value}")
        conversion = prepare(source, output, (Format.HF if repair else accepted, wanted), options, execution)
        _print_plan(conversion, PrintOptions(as_json=as_json, verbose=False, quiet=False))


def verify(left: Path, right: Path | None, workers: int | None, show: PrintOptions) -> None:
    """Compare two checkpoints, or the files of one with their checksums."""
    with exit_codes():
        if right is None:
            _verify_checksums(left, workers, show)
            return
        with progress_bar(quiet=show.quiet) as progress:
            found = verify_checkpoints(left, right, workers=workers, progress=progress)
        _print(
            found.as_json,
            lambda: text_reports.comparison_lines(found, verbose=show.verbose),
            show,
        )
        if not found.identical:
            raise typer.Exit(DIFFERS)


def inspect(path: Path, show: PrintOptions) -> None:
    """Describe a checkpoint."""
    with exit_codes():
        found = inspect_checkpoint(path)
        _print(found.as_json, lambda: text_reports.inspection_lines(found), show)


def _announce(conversion: Conversion) -> None:
    """Say on stderr that an earlier run is gone on with."""
    if conversion.execution.restart or not partial_path(conversion.output).exists():
        return
    names = {shard.name for shard in conversion.shards}
    kept = [name for name in finished_files(conversion.output, identity_of(conversion)) if name in names]
    if kept:
        warn(f"Resuming: {len(kept)} of {len(names)} files are done.")


def _check_shard_size(options: Options, execution: Execution) -> None:
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


def _verify_checksums(directory: Path, workers: int | None, show: PrintOptions) -> None:
    with progress_bar(quiet=show.quiet) as progress:
        found = verify_checksums(directory, workers=workers, progress=progress)
    _print(found.as_json, lambda: text_reports.checksum_lines(directory, found), show)
    if not found.intact:
        raise typer.Exit(DIFFERS)


def _print_plan(conversion: Conversion, show: PrintOptions) -> None:
    restart = conversion.execution.restart
    kept = [] if restart else finished_files(conversion.output, identity_of(conversion))
    budget = budget_of(conversion, kept)
    _print(
        lambda: text_reports.plan_as_json(conversion, budget), lambda: text_reports.plan_lines(conversion, budget), show
    )
    check_room(budget, conversion.output)


def _print(values: Callable[[], Mapping[str, Any]], lines: Callable[[], Iterable[str]], show: PrintOptions) -> None:
    if show.as_json:
        say(json.dumps(values(), indent=2).splitlines())
    elif not show.quiet:
        say(lines())
