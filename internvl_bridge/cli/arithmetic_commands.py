"""What the commands that compute do: call the library, and answer."""

from pathlib import Path

from internvl_bridge.cli.answers import Answer, PrintOptions, answer
from internvl_bridge.cli.commands import announce, check_shard_size, planned, say_warnings
from internvl_bridge.cli.terminal import progress_bar
from internvl_bridge.convert.arithmetic import prepare_cast, prepare_merge
from internvl_bridge.convert.conversion_report import conversion_report
from internvl_bridge.convert.extraction import PlannedExtraction, carry_out_extraction, prepare_extraction
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.run import carry_out

_PREPARE = {"merge": prepare_merge, "cast": prepare_cast}


def compute(
    command: str, source: Path, output: Path, options: Options, execution: Execution, show: PrintOptions
) -> None:
    """Carry ``command`` out, "merge" or "cast", or say what it would do."""

    def work() -> Answer:
        check_shard_size(options, execution)
        conversion = _PREPARE[command](source, output, options, execution)
        say_warnings(conversion.warnings)
        if show.dry_run:
            return planned(conversion)
        if not show.quiet:
            announce(conversion)
        with progress_bar(quiet=show.quiet) as progress:
            report = carry_out(conversion, progress)
        say_warnings(report.warnings[len(conversion.warnings) :])
        return Answer("conversion", report.as_json, lambda: conversion_report(report, every=show.verbose, warned=True))

    answer(command, work, show)


def extract(source: Path, output: Path, options: Options, execution: Execution, show: PrintOptions) -> None:
    """Take the adapter out of ``source``, or say what that would do."""

    def work() -> Answer:
        check_shard_size(options, execution)
        both = prepare_extraction(source, output, options, execution)
        say_warnings(both.base.warnings)
        if show.dry_run:
            return _planned_extraction(both)
        if not show.quiet:
            announce(both.base)
        with progress_bar(quiet=show.quiet) as progress:
            found = carry_out_extraction(both, progress)
        say_warnings(found.base.warnings[len(both.base.warnings) :])
        return Answer(
            "extraction",
            found.as_json,
            lambda: (
                line
                for report in (found.base, found.adapter)
                for line in conversion_report(report, every=show.verbose, warned=True)
            ),
        )

    answer("extract", work, show)


def _planned_extraction(both: PlannedExtraction) -> Answer:
    plans = [planned(both.base), planned(both.adapter)]
    return Answer(
        "extraction_plan",
        lambda: {"base": plans[0].values(), "adapter": plans[1].values()},
        lambda: (line for plan in plans for line in plan.parts()),
        refusal=plans[0].refusal,
    )
