"""What each command of the command line does: call the library, print, choose the exit code."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from internvl_bridge import words
from internvl_bridge.conversion import carry_out
from internvl_bridge.inspection import inspect as inspect_checkpoint
from internvl_bridge.metadata.config_file import Format
from internvl_bridge.options import Options
from internvl_bridge.preparation import prepare
from internvl_bridge.report import comparison_as_json
from internvl_bridge.terminal import DIFFERS, exit_codes, progress_bar, say
from internvl_bridge.verify_directories import verify as verify_checkpoints


@dataclass(frozen=True, slots=True)
class Show:
    """How results are printed."""

    as_json: bool
    verbose: bool
    quiet: bool


def convert(
    source: Path, output: Path, formats: tuple[Format, Format], options: Options, *, dry_run: bool, show: Show
) -> None:
    """Convert ``source`` from the first format into the second, or say what would be done."""
    with exit_codes():
        conversion = prepare(source, output, formats, options)
        if dry_run:
            _print(lambda: words.plan_as_json(conversion), lambda: words.plan_words(conversion), show)
            return
        with progress_bar(quiet=show.quiet) as progress:
            report = carry_out(conversion, progress)
        _print(report.as_json, lambda: words.conversion_words(report, verbose=show.verbose), show)
        if not report.ok:
            raise typer.Exit(DIFFERS)


def verify(left: Path, right: Path, show: Show) -> None:
    """Compare two checkpoints."""
    with exit_codes():
        with progress_bar(quiet=show.quiet) as progress:
            found = verify_checkpoints(left, right, progress=progress)
        _print(
            lambda: comparison_as_json(found),
            lambda: words.comparison_words(found, verbose=show.verbose),
            show,
        )
        if not found.identical:
            raise typer.Exit(DIFFERS)


def inspect(path: Path, show: Show) -> None:
    """Describe a checkpoint."""
    with exit_codes():
        found = inspect_checkpoint(path)
        _print(found.as_json, lambda: words.inspection_words(found), show)


def _print(values: Callable[[], Mapping[str, Any]], lines: Callable[[], Iterable[str]], show: Show) -> None:
    if show.as_json:
        say(json.dumps(values(), indent=2).splitlines())
    elif not show.quiet:
        say(lines())
