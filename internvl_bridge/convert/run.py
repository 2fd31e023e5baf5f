"""Convert one directory into another: copy, verify and publish what was prepared."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from internvl_bridge.checkpoint.weights import holds_weights
from internvl_bridge.convert.consuming import Consuming
from internvl_bridge.convert.disk_budget import budget_of, check_room
from internvl_bridge.convert.identity import identity_of
from internvl_bridge.convert.integrity import check_crcs, checksums_of_rest, compare_with_record
from internvl_bridge.convert.layout_check import check_layout
from internvl_bridge.convert.link_weights import link_shards
from internvl_bridge.convert.logging_runs import log_begin, log_end
from internvl_bridge.convert.make_weights import (
    check_data,
    consume,
    make_weights,
    nothing_kept,
    output_permissions,
    places_of,
)
from internvl_bridge.convert.overwrite_check import check_replaceable
from internvl_bridge.convert.prepare import Conversion
from internvl_bridge.convert.record import record_of
from internvl_bridge.convert.source_watch import check_contents, settled_stamps
from internvl_bridge.convert.tensor_places import ShardPlaces, checksums_at
from internvl_bridge.convert.write_small_files import write_companions, write_sidecar
from internvl_bridge.convert.written import Written
from internvl_bridge.metadata.sidecar import LINKED, RECORD, SIDECAR_FILE, Manifest, WeightsRecord, sidecar_text
from internvl_bridge.notes import warnings_of, without_warnings
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import ALGORITHM, checksum_of, text_checksum
from internvl_bridge.storage.file_system import FileSystem
from internvl_bridge.storage.header import LENGTH_PREFIX
from internvl_bridge.storage.inventory import Entry, check_inventory
from internvl_bridge.storage.publishing import publishing
from internvl_bridge.storage.shard_jobs import WrittenShard
from internvl_bridge.storage.stamps import check_unchanged
from internvl_bridge.storage.workspace import keep_only
from internvl_bridge.work.interrupts import interrupts_held
from internvl_bridge.work.progress import Progress, silent, stoppable
from internvl_bridge.work.workers import check_workers

if TYPE_CHECKING:
    from internvl_bridge.checkpoint.computed_tensors import Rounding
    from internvl_bridge.convert.report import ConversionReport
    from internvl_bridge.verification.tensors import Comparison


def carry_out(
    conversion: Conversion, progress: Progress = silent, before: Callable[[], None] = lambda: None
) -> "ConversionReport":
    """Write what was decided: complete, verified (unless told not to), and published by a rename after ``before``.

    Goes on where an earlier run of the same conversion was stopped.
    """
    output = conversion.output
    start = time.monotonic()
    log_begin(conversion)
    roundings: dict[str, Rounding] = {}
    with interrupts_held() as check, _source(conversion, roundings) as source:
        heard = stoppable(progress, check)
        written = _write(conversion, heard, check, source, before)
        try:
            reference = _compare_with_reference(conversion, heard)
            check()
        except BaseException as error:
            error.add_note(f"{output} is complete.")
            raise
    log_end(conversion, time.monotonic() - start, written.warnings)
    from internvl_bridge.convert.run_report import report_of  # noqa: PLC0415 (no byte should wait for it)

    return report_of(conversion, written, time.monotonic() - start, reference, roundings)


@contextmanager
def _source(conversion: Conversion, roundings: "dict[str, Rounding]") -> Iterator[FileSystem]:
    """Where the weights are read from: the disk, or where they are computed, and ``roundings`` measured."""
    computation = conversion.computation
    if computation is None:
        yield conversion.execution.reads
        return
    from internvl_bridge.checkpoint.computed_files import ComputedFiles  # noqa: PLC0415
    from internvl_bridge.checkpoint.torch_threads import one_thread_each  # noqa: PLC0415

    with one_thread_each():
        yield ComputedFiles(computation.files, computation.dtype is not None, roundings=roundings)


def _write(
    conversion: Conversion,
    progress: Progress,
    check: Callable[[], None],
    source: FileSystem,
    before: Callable[[], None],
) -> Written:
    """Write all files and publish them, or nothing if ``check`` raises. Weights are read from ``source``."""
    output, execution, model = conversion.output, conversion.execution, conversion.model
    check_data(conversion, source)
    identity = identity_of(conversion)
    check_layout(conversion.shards, conversion.targets)
    allowed = output_permissions(conversion)
    with publishing(
        output, identity, overwrite=execution.overwrite, restart=execution.restart, permissions=allowed
    ) as workspace:
        keep_only(workspace, {shard.name for shard in conversion.shards})
        check_room(budget_of(conversion, workspace.journal.finished), output)
        stamps = settled_stamps(model, conversion.there, progress)
        if conversion.options.link is not None:
            stamps = link_shards(conversion.shards, workspace, conversion.options.link, stamps)
        checksums, stamps_of_small = write_companions(
            workspace, conversion.texts, conversion.copies, conversion.index, check
        )
        places = places_of(conversion)
        compared: Mapping[str, str] = {}
        if execution.consume:
            consuming = Consuming(conversion, workspace, stamps, places, check)
            shards = consume(consuming, conversion, workspace, places, progress)
            stamps, compared = consuming.stamps, consuming.checksums
        else:
            shards = make_weights(conversion, workspace, stamps, places, progress, source)
        told = _compare_with_record(conversion, shards, places, check, compared)
        written = Written(workspace, conversion.found, shards, warnings_of(told), without_warnings(told))
        text = _sidecar(conversion, written, checksums, places)
        sidecar = Entry(write_sidecar(workspace, text), text_checksum(text))
        check_contents(conversion.inputs, conversion.contents)
        with nothing_kept(workspace):
            check_unchanged(stamps.items())
        if execution.overwrite:
            check_replaceable(output, conversion.inputs)  # somebody may have put something there meanwhile
        small = {name: Entry(stamp, checksums[name]) for name, stamp in stamps_of_small.items()}
        weights = {shard.name: Entry(shard.stamp, _whole(shard), shard.leads_to) for shard in shards}
        check_inventory(workspace.directory, {**small, **weights, SIDECAR_FILE: sidecar})
        before()
    return written


def _compare_with_record(
    conversion: Conversion,
    shards: Iterable[WrittenShard],
    places: Iterable[ShardPlaces],
    check: Callable[[], None],
    compared: Mapping[str, str],
) -> tuple[str, ...]:
    """Notes about the source's tensors, compared with the checksums that it carries; ``compared`` are known."""
    passed = dict(compared)
    for place, shard in zip(places, shards, strict=True):
        passed |= checksums_at(place.sources, shard.checksums)
    if conversion.execution.verify:
        computes = conversion.computation is not None  # no tensor that is computed has passed as it is
        passed |= checksums_of_rest(conversion.recorded, passed, conversion.model, check, of_all=computes)
        check_crcs(_crcs_of_rest(conversion, places), check)
    return compare_with_record(conversion.recorded, passed, conversion.model, conversion.execution.accept)


def _crcs_of_rest(conversion: Conversion, places: Iterable[ShardPlaces]) -> dict[ByteRange, int]:
    """The CRC-32 of what tensors are computed from, which did not pass as it is."""
    computation = conversion.computation
    if computation is None or "checksums" in conversion.execution.accept:
        return {}
    seen = {origin for place in places for _, _, origin in place.crcs}
    stated = {**conversion.model.weights.crcs, **computation.crcs}
    return {origin: crc for origin, crc in stated.items() if origin not in seen}


def _whole(shard: WrittenShard) -> str | None:
    return None if shard.checksums is None else shard.checksums.whole


def _sidecar(
    conversion: Conversion, written: Written, checksums: Mapping[str, str], places: Sequence[ShardPlaces]
) -> str:
    """The text of the sidecar; ``checksums`` are those of the small files."""
    weights: dict[str, WeightsRecord] = {}
    for planned, shard, place in zip(conversion.shards, written.shards, places, strict=True):
        header = checksum_of([planned.header[LENGTH_PREFIX:]])
        tensors = checksums_at(place.targets, shard.checksums)
        weights[shard.name] = WeightsRecord(planned.size, header, tensors)
    files = {shard.name: whole for shard in written.shards if (whole := _whole(shard)) is not None}
    warnings, notes = (*conversion.warnings, *written.warnings), (*conversion.notes, *written.notes)
    how = "linked, read" if conversion.execution.read_links else "linked, with the checksums of the source"
    linked = {shard.name: how if shard.checksums else "linked, not read" for shard in written.shards if shard.leads_to}
    record = record_of(
        conversion.command, conversion.options, conversion.execution, conversion.model.filled, warnings, notes
    )
    if linked:
        record[LINKED] = linked
    manifest = Manifest(ALGORITHM, {**checksums, **files}, weights)
    return sidecar_text({**conversion.sidecar, RECORD: record}, manifest, text_checksum)


def _compare_with_reference(conversion: Conversion, progress: Progress) -> "Comparison | None":
    reference = conversion.reference
    if reference is None or not holds_weights(reference):
        return None
    from internvl_bridge.verification.directories import compare_models  # noqa: PLC0415 (few have one)

    return compare_models(conversion.output, reference, check_workers(conversion.execution.workers), progress)
