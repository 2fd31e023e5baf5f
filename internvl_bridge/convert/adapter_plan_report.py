"""What a conversion of an adapter would do, as a report for people, and as values for programs."""

from collections.abc import Iterator
from dataclasses import asdict

from internvl_bridge.checkpoint.adapter_report import adapter_summary
from internvl_bridge.convert.adapters import AdapterConversion
from internvl_bridge.convert.disk_budget import Budget
from internvl_bridge.errors import first_few
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Facts, Part


def adapter_plan(conversion: AdapterConversion, budget: Budget) -> Iterator[Part]:
    """What a conversion of an adapter would do."""
    yield adapter_intention(conversion)
    yield adapter_cost_facts(conversion, budget)
    yield from (f"Note: {note}" for note in conversion.notes)


def adapter_intention(conversion: AdapterConversion) -> str:
    """What it would do, in a sentence or two."""
    return (
        f"Would convert {conversion.adapter.directory} (an adapter of {conversion.family}) into {conversion.output} "
        f"({conversion.wanted.value}). Proved: every tensor is used, and every target exists in the base model."
    )


def adapter_cost_facts(conversion: AdapterConversion, budget: Budget) -> Facts:
    """What it would cost, and what it would write."""
    packed = conversion.plan.packed
    made = f"{len(packed.modules)} modules, {len(packed.parameters)} parameters of experts, {len(packed.whole)} whole"
    values = {
        "Found": adapter_summary(conversion.found),
        "Room": f"needs {human_size(budget.room)}, and {human_size(budget.free)} are free",
        "Would write": f"{made}; {', '.join(conversion.files)}",
        "Left behind": first_few(conversion.left_behind),
    }
    return Facts({name: value for name, value in values.items() if value})


def adapter_plan_as_json(conversion: AdapterConversion, budget: Budget) -> dict[str, object]:
    """The whole plan of an adapter as JSON values, with the keys that each tensor is made of."""
    sources = conversion.plan.sources
    return {
        "source": str(conversion.adapter.directory),
        "output": str(conversion.output),
        "format": conversion.wanted.value,
        "family": conversion.family,
        "found": conversion.found.as_json(),
        "files": list(conversion.files),
        "budget": {**asdict(budget), "fits": budget.fits},
        "left_behind": list(conversion.left_behind),
        "warnings": list(conversion.warnings),
        "notes": list(conversion.notes),
        "config": dict(conversion.plan.config),
        "tensors": {
            key: {"dtype": entry.dtype, "shape": list(entry.shape), "sources": list(sources[key])}
            for key, entry in conversion.entries.items()
        },
    }
