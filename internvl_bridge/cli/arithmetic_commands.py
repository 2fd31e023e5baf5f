"""What the commands that compute do: call the library, and answer."""

from dataclasses import replace
from pathlib import Path

from internvl_bridge.cli.answers import Answer, PrintOptions, answer
from internvl_bridge.cli.commands import announce, converted, place_of
from internvl_bridge.cli.planning import budget_now, check_shard_size, planned, planned_within, say_warnings
from internvl_bridge.cli.pushing import check_push
from internvl_bridge.cli.terminal import progress_bar
from internvl_bridge.convert.arithmetic import prepare_cast, prepare_merge
from internvl_bridge.convert.at_hand import at_hand
from internvl_bridge.convert.conversion_report import conversion_report
from internvl_bridge.convert.extraction import PlannedExtraction, carry_out_extraction, prepare_extraction
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.pages.conversion_page import extraction_page
from internvl_bridge.pages.plan_page import plans_page

_PREPARE = {"merge": prepare_merge, "cast": prepare_cast}


def compute(
    command: str, source: Path, output: Path, options: Options, execution: Execution, show: PrintOptions
) -> None:
    """Carry ``command`` out, "merge" or "cast", or say what it would do."""

    def work() -> Answer:
        check_shard_size(options, execution)
        check_push(execution, show)
        with at_hand(source, options, execution, bars=show.bars) as found:
            conversion = _PREPARE[command](found.source, output, found.options, found.execution)
            say_warnings(conversion.warnings)
            if show.dry_run:
                return replace(planned(conversion), place=place_of(found.execution, found.source))
            if not show.quiet:
                announce(conversion)
            return converted(conversion, show)

    answer(command, work, show, output)


def extract(source: Path, output: Path, options: Options, execution: Execution, show: PrintOptions) -> None:
    """Take the adapter out of ``source``, or say what that would do."""

    def work() -> Answer:
        check_shard_size(options, execution)
        with at_hand(source, options, execution, bars=show.bars) as hand:
            both = prepare_extraction(hand.source, output, hand.options, hand.execution)
            say_warnings(both.base.warnings)
            if show.dry_run:
                return replace(_planned_extraction(both), place=place_of(hand.execution, hand.source))
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
                lambda: extraction_page(found),
                place=place_of(hand.execution, hand.source),
            )

    answer("extract", work, show, output)


def _planned_extraction(both: PlannedExtraction) -> Answer:
    budgets = {name: (conversion, budget_now(conversion)) for name, conversion in both.by_name.items()}
    plans = [planned_within(*plan) for plan in budgets.values()]
    return Answer(
        "extraction_plan",
        lambda: {"base": plans[0].values(), "adapter": plans[1].values()},
        lambda: (line for plan in plans for line in plan.parts()),
        lambda: plans_page(budgets),
        refusal=plans[0].refusal,
    )
