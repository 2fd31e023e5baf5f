"""Put together what a run has done, as the value that callers get."""

import os
from collections.abc import Iterable, Iterator, Mapping

from internvl_bridge.checkpoint.computed_tensors import Rounding
from internvl_bridge.convert.computation import Computation, Computed, PartRounding
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.report import ConversionReport, Linked
from internvl_bridge.convert.written import Written
from internvl_bridge.mapping.schema_check import part_of
from internvl_bridge.storage.shard_jobs import WrittenShard
from internvl_bridge.storage.workspace import Workspace
from internvl_bridge.verification.tensors import Comparison


def report_of(
    conversion: Conversion,
    written: Written,
    seconds: float,
    reference: Comparison | None,
    roundings: Mapping[str, Rounding],
) -> ConversionReport:
    """The report of ``conversion``, which took so many ``seconds`` and has ``written`` its output.

    ``reference`` is the comparison with the reference, and ``roundings`` are those that were measured.
    """
    model, shards = conversion.model, written.shards
    keys = tuple(key for shard in conversion.shards for key in shard.keys)
    return ConversionReport(
        source=model.source.weights,
        output=conversion.output,
        command=conversion.command,
        format=conversion.wanted.value,
        found=written.found,
        family=model.description.family.name,
        tensors=len(conversion.plan.recipes),
        bytes=conversion.data_bytes,
        cloned=sum(shard.cloned for shard in shards),
        seconds=seconds,
        kept=tuple(shard.name for shard in shards if shard.kept),
        files=conversion.files,
        left_behind=conversion.left_behind,
        fields=conversion.fields,
        accepted=tuple(sorted(conversion.execution.accept)),
        engines=conversion.engines,
        filled=model.filled,
        warnings=(*conversion.warnings, *written.warnings),
        notes=(*conversion.notes, *written.notes, *_about_this_run(written.workspace, shards)),
        verification=Comparison((), (), {}, (), keys) if conversion.execution.verify else None,
        reference=reference,
        computed=_computed(conversion.computation, roundings),
        linked=_linked(conversion, shards),
        consumed=tuple(sorted(written.workspace.journal.consumed)),
        streamed=conversion.execution.stream,
        by_workers=conversion.execution.executor is not None or conversion.execution.rereads,
        moves=conversion.moves,
    )


def _linked(conversion: Conversion, written: Iterable[WrittenShard]) -> Linked | None:
    if conversion.options.link is None:
        return None
    links = [shard for shard in written if shard.leads_to is not None]
    size = sum(shard.data_size for shard in conversion.shards if shard.equals is not None)
    unread = tuple(shard.name for shard in links if shard.checksums is None)
    return Linked(conversion.options.link, tuple(shard.name for shard in links), unread, size)


def _computed(computation: Computation | None, measured: Mapping[str, Rounding]) -> Computed | None:
    if computation is None:
        return None
    roundings: dict[str, PartRounding] = {}
    for key, found in measured.items():
        part = part_of(key)
        before = roundings.get(part, PartRounding(-1.0, key, 0))
        largest = key if found.error > before.error else before.key
        roundings[part] = PartRounding(max(found.error, before.error), largest, before.vanished + found.vanished)
    modules = {name: tuple(scaling.value for scaling in found) for name, found in computation.modules.items()}
    return Computed(len(computation.tensors), modules, computation.dtype, dict(sorted(roundings.items())))


def _about_this_run(workspace: Workspace, shards: Iterable[WrittenShard]) -> Iterator[str]:
    if not workspace.journal.locked:
        yield _NO_LOCKS
    if os.path.lexists(workspace.files.parent):
        yield f"{workspace.files.parent} could not be removed. Nothing needs it any more."
    if unread := sum(shard.checksums is None and shard.leads_to is None for shard in shards):
        yield f"{unread} file(s) of weights were cloned and not read back, so that they have no checksum."


_NO_LOCKS = "This file system has no locks: nothing would have kept a second conversion away from the same output."
