"""What the commands do where several processes make one output: write a share of it, and finish it."""

import os
from collections.abc import Iterator
from pathlib import Path

from internvl_bridge.cli.answers import Answer, PrintOptions, answer
from internvl_bridge.cli.commands import converted, place_of
from internvl_bridge.cli.planning import say_warnings
from internvl_bridge.cli.pushing import check_push
from internvl_bridge.cli.terminal import progress_bar
from internvl_bridge.convert.finishing import shared_conversion
from internvl_bridge.convert.options import Execution
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.run_share import ShareReport, carry_out_share, copied_shards
from internvl_bridge.convert.shares import share_of
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.work.worker_number import worker_of


def write_share(conversion: Conversion, show: PrintOptions) -> Answer:
    """Write the files that are the share of one worker."""
    worker = worker_of(conversion.execution.worker or "", os.environ)
    with progress_bar(quiet=show.quiet) as progress:
        report = carry_out_share(conversion, worker, progress)
    place = place_of(conversion.execution, conversion.inputs[0])
    return Answer("share", report.as_json, lambda: _lines(report, conversion), place=place)


def planned_share(conversion: Conversion) -> str:
    """What one worker would write."""
    worker, copied = worker_of(conversion.execution.worker or "", os.environ), copied_shards(conversion)
    share = share_of(copied, worker)
    size = human_size(sum(shard.data_size for shard in share))
    return f"Worker {worker} would write {len(share)} of {len(copied)} file(s) of weights, {size}."


def finish(output: Path, execution: Execution, show: PrintOptions) -> None:
    """Read what the workers have made, compare it with what they wrote down, and publish it."""

    def work() -> Answer:
        check_push(execution, show)
        with shared_conversion(output, execution) as conversion:
            say_warnings(conversion.warnings)
            return converted(conversion, show)

    answer("finish", work, show, output)


def _lines(report: ShareReport, conversion: Conversion) -> Iterator[str]:
    of = len(copied_shards(conversion))
    finish = f"internvl-bridge finish {typed_path(report.output)}"
    if conversion.execution.overwrite:
        finish += " --overwrite"
    what = f"{len(report.files)} file(s), {human_size(report.bytes)}, in {report.seconds:.1f} s"
    kept = f" {len(report.kept)} of them were there from an earlier run." if report.kept else ""
    if report.files or report.elsewhere:
        yield f"Worker {report.worker} has finished its {what}.{kept}"
    else:
        yield f"Worker {report.worker} has nothing to write: there are {of} file(s) of weights (--max-shard-size)."
    if report.elsewhere:
        yield f"{len(report.elsewhere)} file(s) of its share were finished by others."
    done, then = of - len(report.missing), "When all are:" if report.missing else "Now:"
    yield f"{done} of {of} files of weights are finished. {then} {finish}"
