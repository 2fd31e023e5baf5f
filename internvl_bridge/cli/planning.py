"""What the command that plans does, and --dry-run of the others: call the library, and answer."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from internvl_bridge.checkpoint.adapter_directory import is_adapter_directory
from internvl_bridge.checkpoint.looking import looked_at
from internvl_bridge.cli.answers import Answer, PlaceRead, PrintOptions, answer
from internvl_bridge.cli.terminal import warn
from internvl_bridge.convert.at_hand import options_at_hand
from internvl_bridge.convert.disk_budget import Budget, budget_of, check_room
from internvl_bridge.convert.identity import identity_of
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.plan_report import plan_as_json, plan_report
from internvl_bridge.convert.prepare import Conversion, prepare
from internvl_bridge.errors import BridgeError, OptionError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.file import detect_format, read_config
from internvl_bridge.reporting.sizes import human_size, parse_size
from internvl_bridge.reporting.tables import Part
from internvl_bridge.storage.publishing import finished_files

if TYPE_CHECKING:
    from internvl_bridge.convert.computation import Computation
    from internvl_bridge.pages.page import Page

_SMALLEST_SHARD = 1_000_000
"""Bytes."""


def plan(
    source: Path, output: Path | None, options: Options, execution: Execution, show: PrintOptions, *, repair: bool
) -> None:
    """Say what converting ``source`` into the other format, or a repair, would do and cost."""

    def work() -> Answer:
        with looked_at(source) as look:
            chosen = options_at_hand(options, only_small=True) if look.origin is not None else options_at_hand(options)
            beside = Path.cwd() / look.directory.name if look.origin else look.directory.absolute()
            if is_adapter_directory(look.directory):
                from internvl_bridge.cli.adapter_commands import plan_adapter  # noqa: PLC0415 (few sources are adapters)

                return plan_adapter(look.directory, output, chosen, execution, repair=repair)
            check_shard_size(options, execution)
            accepted = detect_format(read_config(look.directory if chosen.config is None else Path(chosen.config)))
            wanted = accepted if repair else next(format_ for format_ in Format if format_ is not accepted)
            place = output or beside.with_name(f"{beside.name}-{wanted.value}")
            conversion = prepare(look.directory, place, (Format.HF if repair else accepted, wanted), chosen, execution)
            say_warnings(conversion.warnings)
            return replace(planned(conversion), place=PlaceRead.of(look))

    answer("plan", work, show, output)


def say_warnings(warnings: Iterable[str]) -> None:
    """Say what should stop somebody."""
    for warning in warnings:
        warn(f"Warning: {warning}")


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
            else _computation_plan(conversion, computation, budget)
        ),
        lambda: _plan_page(conversion, budget),
        refusal=lack_of_room(budget, conversion.output),
    )


def lack_of_room(budget: Budget, output: Path) -> BridgeError | None:
    """The refusal of what does not fit on the disk of ``output``, if it does not."""
    try:
        check_room(budget, output)
    except BridgeError as error:
        return error
    return None


def _plan_page(conversion: Conversion, budget: Budget) -> "Page":
    from internvl_bridge.pages.plan_page import plan_page  # noqa: PLC0415 (only for --report)

    return plan_page(conversion, budget)


def _computation_plan(conversion: Conversion, computation: "Computation", budget: Budget) -> Iterator[Part]:
    from internvl_bridge.convert.computation_plan_report import computation_plan  # noqa: PLC0415 (seldom)

    return computation_plan(conversion, computation, budget)
