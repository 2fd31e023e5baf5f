"""What the commands that convert do: call the library, and answer."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.cli.answers import Answer, PlaceRead, PrintOptions, answer
from internvl_bridge.cli.planning import check_shard_size, planned, say_warnings
from internvl_bridge.cli.pushing import check_push, push_output, pushed_parts, with_push
from internvl_bridge.cli.terminal import DIFFERS, progress_bar, warn
from internvl_bridge.convert.at_hand import at_hand
from internvl_bridge.convert.identity import identity_of
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.prepare import FORMATS, Conversion, prepare
from internvl_bridge.convert.run import carry_out
from internvl_bridge.errors import OptionError
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.storage.output_place import partial_path
from internvl_bridge.storage.publishing import finished_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from internvl_bridge.convert.report import ConversionReport
    from internvl_bridge.pages.page import Page
    from internvl_bridge.reporting.tables import Part


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
        check_worker(output, execution, show)
        check_push(execution, show)
        with at_hand(source, options, execution, bars=show.bars) as found:
            place = place_of(found.execution, found.source)
            if is_adapter_directory(found.source):
                from internvl_bridge.cli.adapter_commands import convert_adapter  # noqa: PLC0415 (few sources are)

                done = convert_adapter(found.source, output, FORMATS[command], found.options, found.execution, show)
                return replace(done, place=place)
            check_shard_size(options, execution)
            conversion = prepare(found.source, output, FORMATS[command], found.options, found.execution)
            say_warnings(conversion.warnings)
            if show.dry_run:
                return replace(_planned(conversion), place=place)
            if execution.worker is not None:
                from internvl_bridge.cli.worker_commands import write_share  # noqa: PLC0415 (few commands are one of several)

                return write_share(conversion, show)
            if execution.consume and not show.yes:
                from internvl_bridge.cli.confirming import confirm_consuming  # noqa: PLC0415 (few are asked)

                confirm_consuming(conversion, show)
            if not show.quiet:
                announce(conversion)
            return converted(conversion, show)

    answer(command, work, show, output)


def _planned(conversion: Conversion) -> Answer:
    """What ``conversion`` would do, or one worker of several."""
    found = planned(conversion)
    if conversion.execution.worker is None:
        return found
    from internvl_bridge.cli.worker_commands import planned_share  # noqa: PLC0415 (few commands are one of several)

    return replace(found, parts=lambda: (*found.parts(), planned_share(conversion)))


def check_worker(output: Path, execution: Execution, show: PrintOptions) -> None:
    """Raise OptionError, before the work, if there is no such worker, or it is asked for what needs all files."""
    if execution.worker is None:
        return
    from internvl_bridge.work.worker_number import worker_of  # noqa: PLC0415 (few commands are one of several)

    worker_of(execution.worker, os.environ)
    for flag, value in (("--push-to-hub", show.push_to), ("--report", show.report)):
        if value is not None:
            raise OptionError(
                f"{flag} is for the whole output.",
                f"Leave it out, and add it to: internvl-bridge finish {typed_path(output)}",
            )


@contextmanager
def on_cluster(execution: Execution) -> Iterator[Execution]:
    """``execution`` with the Ray cluster that it names, for a while, if it names one."""
    if execution.ray is None:
        yield execution
        return
    from internvl_bridge.work.ray_cluster import ray_executor  # noqa: PLC0415 (imports Ray)

    with ray_executor(execution.ray) as executor:
        yield replace(execution, executor=executor, workers=execution.workers or executor.at_a_time)


def converted(conversion: Conversion, show: PrintOptions) -> Answer:
    """Carry ``conversion`` out, and push its output if that is wanted."""
    with on_cluster(conversion.execution) as execution, progress_bar(quiet=show.quiet) as progress:
        report = carry_out(replace(conversion, execution=execution), progress)
    say_warnings(report.warnings[len(conversion.warnings) :])  # what only the bytes show
    pushed = push_output(conversion.output, show, is_ok=report.ok)
    return Answer(
        "conversion",
        lambda: with_push(report.as_json(), pushed),
        lambda: (*_report(report, every=show.verbose), *pushed_parts(pushed)),
        lambda: _page(report),
        0 if report.ok else DIFFERS,
        place=place_of(conversion.execution, conversion.inputs[0]),
    )


def place_of(execution: Execution, source: Path) -> PlaceRead | None:
    """The place that the directory ``source`` of a conversion stands for, if it is not here."""
    return None if execution.origin is None else PlaceRead(execution.origin, None, {str(source): execution.origin})


def announce(conversion: Conversion) -> None:
    """Say on stderr that an earlier run is gone on with."""
    if conversion.execution.restart or not partial_path(conversion.output).exists():
        return
    names = {shard.name for shard in conversion.shards}
    kept = [name for name in finished_files(conversion.output, identity_of(conversion)) if name in names]
    if kept:
        warn(f"Resuming: {len(kept)} of {len(names)} files are done.")


def _report(report: "ConversionReport", *, every: bool) -> "Iterable[Part]":
    from internvl_bridge.convert.conversion_report import conversion_report  # noqa: PLC0415 (after the work)

    return conversion_report(report, every=every, warned=True)


def _page(report: "ConversionReport") -> "Page":
    from internvl_bridge.pages.conversion_page import conversion_page  # noqa: PLC0415 (only for --report)

    return conversion_page(report)
