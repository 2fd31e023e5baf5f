"""What the commands do that convert, or plan that, where the source is an adapter."""

from pathlib import Path

from internvl_bridge.checkpoint.adapter_inspection import inspect_adapter
from internvl_bridge.cli.answers import Answer, PrintOptions
from internvl_bridge.cli.planning import lack_of_room, say_warnings
from internvl_bridge.cli.pushing import push_output, pushed_parts, with_push
from internvl_bridge.cli.terminal import progress_bar
from internvl_bridge.convert.adapter_plan_report import adapter_plan, adapter_plan_as_json
from internvl_bridge.convert.adapters import AdapterConversion, prepare_adapter
from internvl_bridge.convert.conversion_report import conversion_report
from internvl_bridge.convert.options import Execution, Options
from internvl_bridge.convert.run_adapter import budget_of_adapter, carry_out_adapter
from internvl_bridge.mapping.formats import Format
from internvl_bridge.pages.conversion_page import conversion_page
from internvl_bridge.pages.plan_page import adapter_plan_page


def convert_adapter(
    source: Path,
    output: Path,
    formats: tuple[Format, Format],
    options: Options,
    execution: Execution,
    show: PrintOptions,
) -> Answer:
    """Convert an adapter, or say what that would do."""
    conversion = prepare_adapter(source, output, formats, options, execution)
    say_warnings(conversion.warnings)
    if show.dry_run:
        return _planned_adapter(conversion)
    with progress_bar(quiet=show.quiet) as progress:
        report = carry_out_adapter(conversion, progress)
    pushed = push_output(output, show)
    return Answer(
        "conversion",
        lambda: with_push(report.as_json(), pushed),
        lambda: (*conversion_report(report, every=show.verbose, warned=True), *pushed_parts(pushed)),
        lambda: conversion_page(report),
    )


def plan_adapter(source: Path, output: Path | None, options: Options, execution: Execution, *, repair: bool) -> Answer:
    """Say what converting an adapter into the other format, or a repair, would do."""
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
        refusal=lack_of_room(budget, conversion.output),
    )
