"""What the commands do where several processes make one output: write a share of it, and finish it."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.cli.answers import Answer, PrintOptions, answer
from internvl_bridge.cli.commands import converted, on_cluster, place_of
from internvl_bridge.cli.planning import check_shard_size, planned, say_warnings
from internvl_bridge.cli.pushing import check_push
from internvl_bridge.cli.terminal import progress_bar
from internvl_bridge.convert.at_hand import at_hand
from internvl_bridge.convert.finishing import shared_conversion
from internvl_bridge.convert.options import Execution, Options, check_spreading
from internvl_bridge.convert.prepare import FORMATS, prepare
from internvl_bridge.convert.run_share import ShareReport, carry_out_share
from internvl_bridge.errors import OptionError
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.work.worker_number import worker_of


def write_share(
    command: str, source: Path, output: Path, options: Options, execution: Execution, show: PrintOptions
) -> Answer:
    """Write the files that are the share of one worker."""
    for flag, value in (("--push-to-hub", show.push_to), ("--report", show.report)):
        if value is not None:
            raise OptionError(f"{flag} is for the whole output.", f"Leave it out, and add it to: {_finish(output)}")
    worker = worker_of(execution.worker or "", os.environ)
    with at_hand(source, options, execution, bars=show.bars) as found:
        if is_adapter_directory(found.source):
            check_spreading(execution, is_adapter=True)
        check_shard_size(options, execution)
        conversion = prepare(found.source, output, FORMATS[command], found.options, found.execution)
        say_warnings(conversion.warnings)
        if show.dry_run:
            return replace(planned(conversion), place=place_of(found))
        with progress_bar(quiet=show.quiet) as progress:
            report = carry_out_share(conversion, worker, progress)
        of = sum(shard.equals is None for shard in conversion.shards)
        return Answer("share", report.as_json, lambda: _lines(report, of), place=place_of(found))


def finish(output: Path, execution: Execution, show: PrintOptions) -> None:
    """Read what the workers have made, compare it with what they wrote down, and publish it."""

    def work() -> Answer:
        check_push(execution, show)
        with on_cluster(execution) as how, shared_conversion(output, how) as conversion:
            say_warnings(conversion.warnings)
            return converted(conversion, show)

    answer("finish", work, show, output)


def _lines(report: ShareReport, of: int) -> Iterator[str]:
    what = f"{len(report.files)} file(s), {human_size(report.bytes)}, in {report.seconds:.1f} s"
    kept = f" {len(report.kept)} of them were there from an earlier run." if report.kept else ""
    yield f"Worker {report.worker} has finished its {what}.{kept}"
    if report.elsewhere:
        yield f"{len(report.elsewhere)} file(s) of its share were finished by others."
    done, then = of - len(report.missing), "When all are:" if report.missing else "Now:"
    yield f"{done} of {of} files of weights are finished. {then} {_finish(report.output)}"


def _finish(output: Path) -> str:
    return f"internvl-bridge finish {typed_path(output)}"
