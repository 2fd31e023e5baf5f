"""Reports as text for people."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path

from internvl_bridge.checkpoint.adapter_inspection import AdapterInspection
from internvl_bridge.checkpoint.adapters import ADAPTER_FILE
from internvl_bridge.checkpoint.inspection import Inspection
from internvl_bridge.cli.adapter_reports import adapter_summary
from internvl_bridge.cli.arithmetic_reports import computed_lines
from internvl_bridge.cli.numberless import numberless
from internvl_bridge.convert.disk_budget import Budget
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.convert.sizes import human_size
from internvl_bridge.errors import first_few
from internvl_bridge.mapping.plan import Plan, Recipe, Run
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.verification.checksums import ChecksumReport
from internvl_bridge.verification.tensors import Comparison

_HEADS = {
    "own": "stored",
    "shared": "tied to the input embeddings",
    "copy": "stored, a copy of the input embeddings (tied)",
    None: "unknown",
}
_DONE = {"repair": "Repaired", "merge": "Merged", "cast": "Cast", "extract": "Extracted"}
_LISTED = 20
_LONGEST_LINE = 400


def conversion_lines(report: ConversionReport, *, verbose: bool) -> Iterator[str]:
    """What a conversion did, line by line."""
    done = _DONE.get(report.command, "Converted")
    yield f"{done} {report.source} into {report.output} ({report.format} format, {report.family})."
    yield f"  Found: {_summary(report.found)}."
    weights = [name for name in report.files if name.endswith(".safetensors")]
    others = [name for name in report.files if name not in weights]
    yield f"  {report.tensors} tensors, {human_size(report.bytes)} in {len(weights)} file(s); {', '.join(others)}"
    speed = f", {human_size(int(report.bytes / report.seconds))}/s" if report.seconds else ""
    yield f"  Took {report.seconds:.1f} s{speed}."
    if report.computed is not None:
        yield from computed_lines(report.computed, report.tensors, verbose=verbose)
    yield from _saved_lines(report)
    if isinstance(report.found, Inspection) and ADAPTER_FILE not in report.files:
        yield f"  Served by: {engines_text(report.engines)}. docs/serving.md says how each was tried."
    if report.left_behind:
        yield f"  Left behind: {', '.join(report.left_behind)}"
    if report.verification is None:
        yield "  Not verified (--no-verify)."
    else:
        yield (
            f"  Verified: read back and compared with {_compared(report)}; every bit is equal. L2 distance 0 for "
            f"each of the {len(report.verification.equal)} tensors, {report.verification.l2:g} over all."
        )
        if verbose:
            yield from _zero_distances(report.verification)
    if report.reference is not None:
        yield f"  Against the reference: {_verdict(report.reference)}"
        yield from _difference_lines(report.reference, verbose=verbose)
    if report.warnings:
        yield f"  {len(report.warnings)} warning(s), see above; they are in {SIDECAR_FILE}, too."
    for note in report.notes:
        yield f"  Note: {note}"


def _saved_lines(report: ConversionReport) -> Iterator[str]:
    """What need not be copied."""
    if report.cloned:
        yield (
            f"  Cloned: {human_size(report.cloned)} share their blocks on disk with the source and take no room; "
            f"the rest was copied."
        )
    if report.kept:
        yield (
            f"  Resumed: {len(report.kept)} file(s) that an earlier run had finished were compared with the source "
            f"and kept."
        )


def _compared(report: ConversionReport) -> str:
    if report.computed is not None:
        return "the source, and with what was computed once more"
    return "the source" if isinstance(report.found, Inspection) else "tensors that were made once more"


def _summary(found: Inspection | AdapterInspection) -> str:
    return adapter_summary(found) if isinstance(found, AdapterInspection) else inspection_summary(found)


def inspection_summary(found: Inspection) -> str:
    """What a source turned out to be."""
    keys = "custom keys" if found.spelling is None else f"HF keys spelled {found.spelling}"
    writer = f", config.json by transformers {found.saved_by}" if found.saved_by else ""
    return f"{keys}, output head {_HEADS[found.head]}, in {found.container}{writer}"


def checksum_lines(directory: Path, found: ChecksumReport) -> Iterator[str]:
    """What a comparison of files with their checksums found, line by line."""
    count = len(found.equal) + len(found.changed) + len(found.missing)
    if found.changed or found.missing:
        bad = sorted((*found.changed, *found.missing))
        yield f"Changed or damaged: {len(bad)} of {count} files of {directory}: {first_few(bad)}."
    elif found.unproved:
        yield f"Not proved: {first_few(found.unproved)} of {directory} do not have a checksum."
    else:
        yield f"Intact: all {count} files of {directory} have the checksum that they were written with."
    for what, names in (("changed", found.changed), ("missing", found.missing), ("no checksum", found.unknown)):
        yield from (f"  {what}: {name}" for name in names)
    if found.unproved:
        yield "Weights without a checksum can be compared with their source: internvl-bridge verify SOURCE OUTPUT."


def comparison_lines(comparison: Comparison, *, verbose: bool) -> Iterator[str]:
    """What a comparison found, line by line."""
    yield ("Identical: " if comparison.identical else "Different: ") + _verdict(comparison)
    yield from _difference_lines(comparison, verbose=verbose)


def inspection_lines(found: Inspection) -> Iterator[str]:
    """What a checkpoint holds, line by line."""
    spelling = f", keys spelled {found.spelling}" if found.spelling else ""
    experts = f", {found.experts} experts" if found.experts else ""
    dtypes = ", ".join(f"{dtype} {count / found.parameters:.1%}" for dtype, count in found.dtypes.items())
    rows = {
        "Checkpoint": found.path,
        "Format": f"{found.format}{spelling}",
        "Language model": f"{found.family} ({found.architecture}), {found.text_layers} layers{experts}",
        "Vision tower": f"{found.tower}, {found.vision_layers} layers",
        "Parameters": f"{found.parameters:,} in {found.tensors:,} tensors",
        "Data": f"{human_size(found.bytes)} in {found.shards} file(s) of {found.container} ({dtypes})",
        "Output head": _HEADS[found.head],
        "Convertible": "yes" if found.refusal is None else f"no. {found.refusal}",
        "Served by": engines_text(found.engines),
    }
    for name, value in rows.items():
        yield f"{name + ':':<16}{value}"
    yield from (f"Beware: {fault}" for fault in found.faults)


def engines_text(engines: Sequence[str]) -> str:
    """The engines that take a checkpoint."""
    return ", ".join(engines) or "no engine that was tried"


def plan_lines(conversion: Conversion, budget: Budget) -> Iterator[str]:
    """What a conversion would do, line by line; layers and experts that go alike share a line."""
    model = conversion.model
    verb = "extract from" if conversion.command == "extract" else "convert"
    yield (
        f"Would {verb} {model.source.weights} ({model.format.value}, {model.description.family.name}) into "
        f"{conversion.output} ({conversion.wanted.value}). Proved: converting back restores every tensor."
    )
    yield f"Found: {inspection_summary(conversion.found)}."
    for line, count in _recipe_lines(conversion.plan).items():
        yield f"  {count:>6} x {line}"
    yield "Would write:"
    for shard in conversion.shards:
        yield f"  {shard.name}: {len(shard.keys)} tensors, {human_size(shard.size)}"
    for name in sorted({*conversion.files} - {shard.name for shard in conversion.shards}):
        yield f"  {name}"
    yield from budget_lines(budget)
    if conversion.left_behind:
        yield f"Would leave behind: {', '.join(conversion.left_behind)}"
    for note in conversion.notes:
        yield f"Note: {note}"


def budget_lines(budget: Budget) -> Iterator[str]:
    """What the disk would have to do, line by line."""
    yield (
        f"Would read {human_size(budget.read)}, write {human_size(budget.written)} and clone "
        f"{human_size(budget.cloned)} (shared with the source on disk). Would also read {human_size(budget.verified)} "
        f"of both sides to compare them."
    )
    if budget.kept:
        yield f"Would keep {human_size(budget.kept)} that an earlier run has finished."
    yield f"Room: needs {human_size(budget.room)}, and {human_size(budget.free)} are free."


def plan_as_json(conversion: Conversion, budget: Budget) -> dict[str, object]:
    """The whole plan as JSON values; runs are ``[source key, first element, past the last]``."""
    return {
        "source": str(conversion.model.source.weights),
        "output": str(conversion.output),
        "format": conversion.wanted.value,
        "family": conversion.model.description.family.name,
        "found": conversion.found.as_json(),
        "weights": [
            {"name": shard.name, "bytes": shard.size, "tensors": list(shard.keys)} for shard in conversion.shards
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


def _recipe_lines(plan: Plan) -> Counter[str]:
    return Counter(f"{numberless(key)} <- {_sources(recipe, plan)}" for key, recipe in plan.recipes.items())


def _sources(recipe: Recipe, plan: Plan) -> str:
    if len(recipe.runs) > 3:
        names = sorted({numberless(run.key) for run in recipe.runs})
        return f"{len(recipe.runs)} runs of {', '.join(names)}"
    return " + ".join(_run_text(run, plan) for run in recipe.runs)


def _run_text(run: Run, plan: Plan) -> str:
    spec = plan.sources[run.key]
    if run.stop - run.start == spec.elements:
        return numberless(run.key)
    rows = range(run.start, run.stop)[:: prod(spec.shape[1:] if len(spec.shape) < 3 else spec.shape[2:])]
    if len(spec.shape) < 3:
        return f"{numberless(run.key)}[{rows.start // rows.step}:{rows.stop // rows.step}]"
    first = rows.start // rows.step % spec.shape[1]  # of one expert among those that are stacked
    return f"{numberless(run.key)}[*, {first}:{first + len(rows)}]"


def _verdict(comparison: Comparison) -> str:
    compared = len(comparison.equal) + len(comparison.differences)
    if not compared:
        return (
            f"no tensor could be compared: {len(comparison.mismatched)} have another dtype or shape, "
            f"{len(comparison.missing)} are missing and {len(comparison.unexpected)} unexpected."
        )
    return (
        f"{len(comparison.equal)} of {compared} tensors are equal bit for bit; L2 distance "
        f"{comparison.l2:g} over all; {len(comparison.missing)} missing, "
        f"{len(comparison.unexpected)} unexpected, {len(comparison.mismatched)} mismatched."
    )


def _difference_lines(comparison: Comparison, *, verbose: bool) -> Iterator[str]:
    limit = None if verbose else _LISTED
    lines = [
        *(f"missing: {key}" for key in comparison.missing),
        *(f"unexpected: {key}" for key in comparison.unexpected),
        *(f"mismatched: {key}: {how}" for key, how in comparison.mismatched.items()),
        *(f"L2 {d.l2:.6g}: {d.key}, from element {d.element} on" for d in comparison.differences),
    ]
    yield from (f"    {line[:_LONGEST_LINE]}" for line in lines[:limit])
    if limit is not None and len(lines) > limit:
        yield f"    and {len(lines) - limit} more; --verbose lists them all"
    if verbose:
        yield from _zero_distances(comparison)


def _zero_distances(comparison: Comparison) -> Iterator[str]:
    yield from (f"    L2 0: {key}" for key in comparison.equal)
