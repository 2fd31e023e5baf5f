"""What a conversion would do, as a report for people, and as values for programs."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from internvl_bridge.convert.disk_budget import Budget
from internvl_bridge.convert.link_notes import links_text
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.errors import first_few
from internvl_bridge.mapping.numberless import numberless
from internvl_bridge.mapping.plan import Plan
from internvl_bridge.mapping.recipes import how_made, made_of
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Facts, Part


def plan_report(conversion: Conversion, budget: Budget) -> Iterator[Part]:
    """What a conversion would do: its costs first, then how tensors are made, then what to know about it.

    Layers and experts that go alike share a line.
    """
    yield intention(conversion)
    yield cost_facts(conversion, budget)
    yield from _recipe_lines(conversion.plan)
    yield from remarks_on_plan(conversion)


def intention(conversion: Conversion) -> str:
    """What it would do, in a sentence or two."""
    model = conversion.model
    source = f"{model.source.weights} ({model.format.value}, {model.description.family.name})"
    if conversion.computation is not None:
        return f"Would {conversion.command} {source} into {conversion.output}, in the same format."
    verb = "extract from" if conversion.command == "extract" else "convert"
    return (
        f"Would {verb} {source} into {conversion.output} ({conversion.wanted.value}). "
        f"Proved: converting back restores every tensor."
    )


def cost_facts(conversion: Conversion, budget: Budget) -> Facts:
    """What it would cost, and what it would write."""
    from internvl_bridge.checkpoint.inspection_report import inspection_summary  # noqa: PLC0415 (not for a run)

    sizes = [shard.size for shard in conversion.shards if shard.equals is None]
    others = sorted({*conversion.files} - {shard.name for shard in conversion.shards})
    compared = f", and {human_size(budget.verified)} of both sides to compare them" if budget.verified else ""
    values = {
        "Found": inspection_summary(conversion.found),
        "Room": f"needs {human_size(budget.room)}, and {human_size(budget.free)} are free",
        "Would read": f"{human_size(budget.read)}{compared}",
        "Would write": f"{human_size(budget.written)} in {_weights_text(sizes)} and {len(others)} other file(s)",
        "Would clone": f"{human_size(budget.cloned)}, shared with the source on disk" if budget.cloned else "",
        "Would link": _links_text(conversion, budget) if budget.linked else "",
        "Would delete": _consumed_text(conversion, budget) if conversion.execution.consume else "",
        "Would keep": f"{human_size(budget.kept)} that an earlier run has finished" if budget.kept else "",
        "Other files": first_few(others),
        "Left behind": first_few(conversion.left_behind),
    }
    return Facts({name: value for name, value in values.items() if value})


def _links_text(conversion: Conversion, budget: Budget) -> str:
    linked = sum(shard.equals is not None for shard in conversion.shards)
    size = sum(shard.size for shard in conversion.shards)
    return links_text(linked, len(conversion.shards), budget.linked, size, str(conversion.options.link))


def _consumed_text(conversion: Conversion, budget: Budget) -> str:
    source = conversion.model.source.weights
    return f"{human_size(budget.consumed)} in {source}, file by file, when the output has their tensors"


def remarks_on_plan(conversion: Conversion) -> Iterator[Part]:
    """What to know about a conversion."""
    yield from (f"Note: {note}" for note in conversion.notes)


def _weights_text(sizes: list[int]) -> str:
    if len(sizes) == 1:
        return "1 file of weights"
    return f"{len(sizes)} files of weights (up to {human_size(max(sizes, default=0))} each)"


def plan_as_json(conversion: Conversion, budget: Budget) -> dict[str, object]:
    """The whole plan as JSON values; runs are ``[source key, first element, past the last]``."""
    return {
        "source": str(conversion.model.source.weights),
        "output": str(conversion.output),
        "format": conversion.wanted.value,
        "family": conversion.model.description.family.name,
        "found": conversion.found.as_json(),
        "weights": [
            {
                "name": shard.name,
                "bytes": shard.size,
                "tensors": list(shard.keys),
                "linked": None if shard.equals is None else str(shard.equals),
            }
            for shard in conversion.shards
        ],
        "files": list(conversion.files),
        "budget": {**asdict(budget), "fits": budget.fits},
        "left_behind": list(conversion.left_behind),
        "fields": dict(conversion.fields),
        "warnings": list(conversion.warnings),
        "notes": list(conversion.notes),
        "computed": [*(conversion.computation.tensors if conversion.computation else ())],
        "plan": {
            key: {
                "dtype": recipe.spec.dtype,
                "shape": list(recipe.spec.shape),
                "runs": [[run.key, run.start, run.stop] for run in recipe.runs],
            }
            for key, recipe in conversion.plan.recipes.items()
        },
    }


def _recipe_lines(plan: Plan) -> Iterator[str]:
    """How tensors are made; those that keep their names and their elements are only counted."""
    changed = {key: recipe for key, recipe in plan.recipes.items() if how_made(key, recipe, plan.sources) != "kept"}
    made = Counter(f"{numberless(key)} <- {made_of(recipe, plan)}" for key, recipe in changed.items())
    if unchanged := len(plan.recipes) - len(changed):
        yield f"  {unchanged:>6} tensors keep their names."
    yield from (f"  {count:>6} x {line}" for line, count in made.items())
