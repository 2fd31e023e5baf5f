"""Reports about adapters as text for people, and as values for programs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from internvl_bridge.checkpoint.adapter_inspection import AdapterInspection
from internvl_bridge.convert.adapters import AdapterConversion
from internvl_bridge.convert.disk_budget import Budget
from internvl_bridge.convert.sizes import human_size
from internvl_bridge.errors import first_few

if TYPE_CHECKING:
    from internvl_bridge.verification.adapters import AdapterComparison

_LISTED = 20


def adapter_summary(found: AdapterInspection) -> str:
    """What an adapter turned out to be."""
    return f"an adapter, {_kind(found)}, rank {found.rank}, {found.modules} modules{_saved(found)}"


def adapter_lines(found: AdapterInspection) -> Iterator[str]:
    """What an adapter holds, line by line."""
    dtypes = ", ".join(found.dtypes)
    spelling = f", modules spelled {found.spelling}" if found.spelling and found.format == "hf" else ""
    version = f", by PEFT {found.peft_version}" if found.peft_version else ""
    fits = "no base model is known; add --base" if found.spelling is None else f"yes ({found.family})"
    rows = {
        "Adapter": found.path,
        "Kind": f"{_kind(found)}{version}",
        "Format": f"{found.format or 'unknown'}{spelling}",
        "Base model": found.base or "not named",
        "Fits it": fits if found.refusal is None else f"no. {found.refusal}",
        "Rank, alpha": f"{found.rank}, {found.alpha:g}",
        "Targets": first_few(found.targets),
        "Changes": f"{found.modules} modules{_saved(found)}",
        "Data": f"{found.parameters:,} parameters in {found.tensors:,} tensors, {human_size(found.bytes)} ({dtypes})",
    }
    for name, value in rows.items():
        yield f"{name + ':':<16}{value}"


def adapter_plan_lines(conversion: AdapterConversion, budget: Budget) -> Iterator[str]:
    """What a conversion of an adapter would do, line by line."""
    yield (
        f"Would convert {conversion.adapter.directory} (an adapter of {conversion.family}) into {conversion.output} "
        f"({conversion.wanted.value}). Proved: every tensor is used, and every target exists in the base model."
    )
    yield f"Found: {adapter_summary(conversion.found)}."
    packed = conversion.plan.packed
    yield f"  {len(packed.modules)} modules, {len(packed.parameters)} parameters of experts, {len(packed.whole)} whole"
    yield f"Would write: {', '.join(conversion.files)}"
    yield f"Room: needs {human_size(budget.room)}, and {human_size(budget.free)} are free."
    if conversion.left_behind:
        yield f"Would leave behind: {', '.join(conversion.left_behind)}"
    for note in conversion.notes:
        yield f"Note: {note}"


def adapter_plan_as_json(conversion: AdapterConversion, budget: Budget) -> dict[str, object]:
    """The whole plan of an adapter as JSON values, with the keys that each tensor is made of."""
    packed, stored = conversion.plan.packed, conversion.plan.adapter.whole
    sources = {key: sorted({block.source.key for block in made.blocks}) for key, made in packed.factors.items()}
    sources |= {key: [source] for key, source in packed.renamed.items()}
    sources |= {key: sorted({stored[run.key][0] for run in made.runs}) for key, made in packed.whole.items()}
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
            key: {"dtype": entry.dtype, "shape": list(entry.shape), "sources": sources[key]}
            for key, entry in conversion.entries.items()
        },
    }


def adapter_comparison_lines(found: "AdapterComparison", *, verbose: bool) -> Iterator[str]:
    """What a comparison of two adapters found, line by line."""
    verdict = "Identical" if found.identical else "Different"
    distance = f"; relative L2 distance of their changes {found.relative:g}" if found.distances else ""
    yield (
        f"{verdict}: {len(found.equal)} modules have the same factors, {len(found.distances)} others{distance}; "
        f"{len(found.missing)} missing, {len(found.unexpected)} unexpected."
    )
    lines = [
        *(f"missing: {name}" for name in found.missing),
        *(f"unexpected: {name}" for name in found.unexpected),
        *(f"L2 {d.l2:.6g}, relative {d.relative:.3g}: {name}" for name, d in sorted(found.distances.items())),
    ]
    shown = lines if verbose else lines[:_LISTED]
    yield from (f"    {line}" for line in shown)
    if len(lines) > len(shown):
        yield f"    and {len(lines) - len(shown)} more; --verbose lists them all"


def _kind(found: AdapterInspection) -> str:
    names = [found.peft_type, *(["rsLoRA"] if found.is_rslora else []), *(["DoRA"] if found.is_dora else [])]
    return " with ".join(names)


def _saved(found: AdapterInspection) -> str:
    return f", {found.saved} parameters replaced" if found.saved else ""
