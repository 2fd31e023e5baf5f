"""Convert an adapter: write, read back and publish what was prepared."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from internvl_bridge._version import __version__
from internvl_bridge.checkpoint.adapter_directory import ADAPTER_FILE
from internvl_bridge.convert.adapters import AdapterConversion
from internvl_bridge.convert.disk_budget import Budget, check_room
from internvl_bridge.convert.integrity import check_crcs
from internvl_bridge.convert.logging_runs import log_begin, log_end
from internvl_bridge.convert.options import PATHS
from internvl_bridge.convert.overwrite_check import check_replaceable
from internvl_bridge.convert.record import record_of
from internvl_bridge.convert.report import ConversionReport
from internvl_bridge.convert.source_watch import check_contents
from internvl_bridge.convert.write_small_files import write_companions, write_sidecar
from internvl_bridge.errors import DifferenceError
from internvl_bridge.metadata.sidecar import RECORD, SIDECAR_FILE, Manifest, sidecar_text
from internvl_bridge.storage.checksums import ALGORITHM, checksum_of, text_checksum
from internvl_bridge.storage.free_space import free_bytes
from internvl_bridge.storage.inventory import Entry, check_inventory
from internvl_bridge.storage.journal import Identity
from internvl_bridge.storage.permissions import permissions_of
from internvl_bridge.storage.publishing import publishing
from internvl_bridge.storage.reading import FileReader, file_checksum
from internvl_bridge.storage.shard_jobs import DAMAGED
from internvl_bridge.storage.small_files import write_pieces
from internvl_bridge.storage.stamps import check_unchanged
from internvl_bridge.storage.workspace import Workspace, keep_only
from internvl_bridge.verification.tensors import Comparison
from internvl_bridge.work.interrupts import interrupts_held
from internvl_bridge.work.progress import Progress, nothing, silent, stoppable


def carry_out_adapter(conversion: AdapterConversion, progress: Progress = silent) -> ConversionReport:
    """Write what was decided: complete, verified (unless told not to) and then published by a rename.

    Adapters are small: a run that was stopped begins anew. One tensor is in memory at a time.
    """
    start = time.monotonic()
    log_begin(conversion)
    with interrupts_held() as check:
        _write(conversion, stoppable(progress, check), check)
    log_end(conversion, time.monotonic() - start)
    keys = tuple(conversion.entries)
    return ConversionReport(
        source=conversion.adapter.directory,
        output=conversion.output,
        command=conversion.command,
        format=conversion.wanted.value,
        found=conversion.found,
        family=conversion.family,
        tensors=len(keys),
        bytes=conversion.data_bytes,
        cloned=0,
        seconds=time.monotonic() - start,
        kept=(),
        files=conversion.files,
        left_behind=conversion.left_behind,
        fields={},
        accepted=tuple(sorted(conversion.execution.accept)),
        engines=(),
        filled=(),
        warnings=conversion.warnings,
        notes=conversion.notes,
        verification=Comparison((), (), {}, (), keys) if conversion.execution.verify else None,
        reference=None,
        computed=None,
        linked=None,
        consumed=(),
        streamed=False,
        by_workers=False,
        moves=conversion.moves,
    )


def budget_of_adapter(conversion: AdapterConversion) -> Budget:
    """What the conversion costs the disk."""
    size = len(conversion.header) + conversion.data_bytes
    small = sum(len(text.encode()) for text in (*conversion.texts.values(), str(conversion.sidecar)))
    small += sum(path.stat().st_size for path in conversion.copies)
    return Budget(
        read=conversion.adapter.checkpoint.data_bytes,
        written=size + small,
        cloned=0,
        linked=0,
        consumed=0,
        verified=size if conversion.execution.verify else 0,
        kept=0,
        room=size + small,
        free=free_bytes(conversion.output.parent),
    )


def _write(conversion: AdapterConversion, progress: Progress, check: Callable[[], None]) -> None:
    output, execution, adapter = conversion.output, conversion.execution, conversion.adapter
    shard = adapter.checkpoint.shards[0]
    paths = {shard.path, *conversion.contents, *conversion.copies}
    allowed = permissions_of(adapter.directory, {path for path in paths if path.parent == adapter.directory})
    identity = _identity(conversion)
    with publishing(
        output, identity, overwrite=execution.overwrite, restart=execution.restart, permissions=allowed
    ) as workspace:
        keep_only(workspace, ())
        check_room(budget_of_adapter(conversion), output)
        checksums, stamps = write_companions(workspace, conversion.texts, conversion.copies, None, check)
        if "checksums" not in execution.accept:
            check_crcs(adapter.crcs, check)
        factors = _write_factors(conversion, workspace, progress)
        manifest = Manifest(ALGORITHM, {**checksums, ADAPTER_FILE: factors.checksum or ""})
        record = record_of(conversion.command, conversion.options, execution, (), conversion.warnings, conversion.notes)
        text = sidecar_text({**conversion.sidecar, RECORD: record}, manifest, text_checksum)
        sidecar = Entry(write_sidecar(workspace, text), text_checksum(text))
        check_contents(conversion.inputs, conversion.contents)
        check_unchanged([(shard.path, shard.stamp)])
        if execution.overwrite:
            check_replaceable(output, conversion.inputs)
        small = {name: Entry(stamp, checksums[name]) for name, stamp in stamps.items()}
        check_inventory(workspace.directory, {**small, ADAPTER_FILE: factors, SIDECAR_FILE: sidecar})


def _write_factors(conversion: AdapterConversion, workspace: Workspace, progress: Progress) -> Entry:
    """Write the file of factors, read it back, and make every tensor once more to compare it with that."""
    path, target = workspace.files / ADAPTER_FILE, workspace.target
    size = len(conversion.header) + conversion.data_bytes
    advance = progress("Converting and verifying" if conversion.execution.verify else "Converting", size, 1)

    def passed() -> Iterator[bytes | bytearray]:
        for piece in _pieces(conversion):
            workspace.check()
            yield piece
            advance(len(piece), 0)

    write_pieces(path, passed(), target)
    stamp = target.stamp(path)
    with FileReader(target) as reader:
        made = file_checksum(path, reader, nothing)
    if conversion.execution.verify and made != checksum_of(map(bytes, _pieces(conversion))):
        raise DifferenceError(f"{ADAPTER_FILE} is not what was to be written.", DAMAGED)
    advance(0, 1)
    return Entry(stamp, made)


def _pieces(conversion: AdapterConversion) -> Iterator[bytes | bytearray]:
    """The file of factors: its header, and its tensors one by one, made of those of the source."""
    from internvl_bridge.checkpoint.lora_tensors import bytes_of, made_tensor, stored_tensors  # noqa: PLC0415

    tensor_of = stored_tensors(conversion.adapter.checkpoint)
    yield conversion.header
    for key in conversion.entries:
        yield bytes_of(made_tensor(key, conversion.plan, tensor_of))


def _identity(conversion: AdapterConversion) -> Identity:
    options = {
        "command": conversion.command,
        "format": conversion.wanted.value,
        "target_base": conversion.options.target_base,
    }
    options |= {"transformers": str(conversion.options.transformers)}
    for name in PATHS:
        stated = getattr(conversion.options, name)
        options[name] = None if stated is None else str(Path(stated).resolve())
    shard = conversion.adapter.checkpoint.shards[0]
    return Identity(
        program=__version__,
        options=options,
        source={
            "directory": str(conversion.adapter.directory.resolve()),
            shard.path.name: [shard.stamp.size, shard.stamp.modified, shard.stamp.header],
        },
        plan=checksum_of([conversion.header]),
    )
