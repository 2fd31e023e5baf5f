"""What a conversion would do and cost, as a page."""

from collections.abc import Iterator, Mapping

from internvl_bridge.convert.adapter_plan_report import adapter_cost_facts, adapter_intention
from internvl_bridge.convert.adapters import AdapterConversion
from internvl_bridge.convert.computation_plan_report import how_it_computes
from internvl_bridge.convert.disk_budget import Budget
from internvl_bridge.convert.plan_report import cost_facts, intention
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.pages.conversion_figures import cost_figure, file_figure, making_figure, parameter_figure
from internvl_bridge.pages.conversion_page import adapter_figure, remarks
from internvl_bridge.pages.page import Page, Section, State, joined
from internvl_bridge.pages.tensor_moves import tensor_moves
from internvl_bridge.reporting.sizes import human_size


def plan_page(conversion: Conversion, budget: Budget) -> Page:
    """The page of ``conversion``, of which nothing has been written."""
    return Page(
        title=f"Plan: {conversion.model.source.weights} into {conversion.output}",
        verdict=f"{intention(conversion)} {_room(budget)}",
        state=_state(budget, conversion.warnings),
        sections=tuple(_sections(conversion, budget)),
    )


def adapter_plan_page(conversion: AdapterConversion, budget: Budget) -> Page:
    """The page of the conversion of an adapter, of which nothing has been written."""
    return Page(
        title=f"Plan: {conversion.adapter.directory} into {conversion.output}",
        verdict=f"{adapter_intention(conversion)} {_room(budget)}",
        state=_state(budget, conversion.warnings),
        sections=(
            Section("In short", (adapter_cost_facts(conversion, budget),)),
            *remarks("Warnings", conversion.warnings),
            Section("What it would hold", (adapter_figure(conversion.moves),)),
            Section("Which tensors would go where", (tensor_moves(conversion.moves),)),
            *remarks("Notes", conversion.notes),
        ),
    )


def plans_page(plans: Mapping[str, tuple[Conversion, Budget]]) -> Page:
    """The page of several outputs of one command, by what they are called."""
    first, *_ = (conversion for conversion, _ in plans.values())
    title = f"Plan: {first.model.source.weights} into {first.output.parent}"
    return joined(title, {name: plan_page(*plan) for name, plan in plans.items()})


def _sections(conversion: Conversion, budget: Budget) -> Iterator[Section]:
    moves = conversion.moves
    yield Section("In short", (cost_facts(conversion, budget),))
    yield from remarks("Warnings", conversion.warnings)
    figures = making_figure(moves), file_figure(moves), cost_figure(budget), parameter_figure(moves.specs)
    yield Section("What it would do", figures)
    if conversion.computation is not None:
        yield Section("What it would compute", tuple(how_it_computes(conversion, conversion.computation)))
    yield Section("Which tensors would go where", (tensor_moves(moves),))
    yield from remarks("Notes", conversion.notes)


def _room(budget: Budget) -> str:
    verdict = "It fits on the disk" if budget.fits else "It does not fit on the disk"
    return f"{verdict}: {human_size(budget.room)} are needed, and {human_size(budget.free)} are free."


def _state(budget: Budget, warnings: tuple[str, ...]) -> State:
    if not budget.fits:
        return "bad"
    return "notice" if warnings else "good"
