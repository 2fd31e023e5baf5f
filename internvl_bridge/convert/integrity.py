"""Compare a source with the checksums that it carries: those that were taken when a conversion made it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

from internvl_bridge.checkpoint.model import Model
from internvl_bridge.errors import BridgeError, CheckpointError, first_few
from internvl_bridge.metadata.sidecar import SIDECAR_FILE, Manifest, is_as_written, read_manifest
from internvl_bridge.notes import Warn, called
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.checksums import ALGORITHM, new_checksum, text_checksum
from internvl_bridge.storage.reading import FileReader, file_checksum
from internvl_bridge.storage.shard_jobs import wrong_crc
from internvl_bridge.storage.stamps import stamp_of
from internvl_bridge.work.progress import nothing

if TYPE_CHECKING:
    from internvl_bridge.checkpoint.adapters import AdapterOnDisk


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is recorded of the weights of a source: the checksums of its tensors, by key.

    ``firm`` are those of files that show no change since: same size, same header, and not newer than the record.
    ``files`` are the checksums of such files as a whole.
    """

    tensors: Mapping[str, str]
    firm: frozenset[str]
    files: Mapping[Path, str]


NOTHING = Recorded({}, frozenset(), {})


def manifest_of(directory: Path) -> tuple[Manifest | None, tuple[str, ...]]:
    """The checksums that ``directory`` carries, None if none can be used; and notes about that."""
    try:
        manifest = read_manifest(directory)
        if manifest is None or manifest.algorithm != ALGORITHM or not manifest.weights:
            return None, ()
        if is_as_written(directory, text_checksum):
            return manifest, ()
    except BridgeError:  # nothing that a conversion needs
        return None, ()
    return None, (Warn(f"{SIDECAR_FILE} was changed since it was written, so that its checksums are not used."),)


def recorded(model: Model, manifest: Manifest | None, *, is_streamed: bool = False) -> Recorded:
    """What ``manifest`` records of the weights of ``model`` that are there, or are read from elsewhere (streamed)."""
    if manifest is None or model.weights.assembly is not None or model.source.config is not None:
        return NOTHING
    written = stamp_of(model.directory / SIDECAR_FILE).modified
    tensors: dict[str, str] = {}
    firm: set[str] = set()
    files: dict[Path, str] = {}
    for key, tensor in model.checkpoint.tensors.items():
        shard = model.checkpoint.shards[tensor.shard]
        if shard.is_absent and model.source.consumption is None and not is_streamed:
            continue
        record = manifest.weights.get(shard.path.name)
        if record is None or key not in record.tensors:
            continue
        tensors[key] = record.tensors[key]
        if (shard.stamp.size, shard.stamp.header) == (record.size, record.header) and shard.stamp.modified <= written:
            firm.add(key)
            if shard.path.name in manifest.files:
                files[shard.path] = manifest.files[shard.path.name]
    return Recorded(tensors, frozenset(firm), files)


def changed_small_files(manifest: Manifest | None, directory: Path, contents: Mapping[Path, str]) -> Iterator[str]:
    """A note about the small files of ``directory`` that are not as they were written; ``contents`` are checksums."""
    there = {path.name: checksum for path, checksum in contents.items() if path.parent == directory}
    known = manifest.files if manifest else {}
    if changed := sorted(name for name in there.keys() & known.keys() if there[name] != known[name]):
        yield f"{first_few(changed)} changed since a conversion wrote the source. The output has what is there now."


def checksums_of_rest(
    record: Recorded, passed: Collection[str], model: Model, check: Callable[[], None], *, of_all: bool = False
) -> dict[str, str]:
    """The checksums of those recorded tensors that would show damage, and that did not pass in one piece.

    They are read once more; ``check`` may end that. ``of_all``: those of changed files, too.
    """
    found: dict[str, str] = {}
    with FileReader() as readers:
        for key in {*(record.tensors if of_all else record.firm)}.difference(passed):
            check()
            if model.checkpoint.shards[model.checkpoint.tensors[key].shard].is_absent:
                continue
            checksum = new_checksum()
            for window in readers.windows(model.checkpoint.tensors[key].ranges):
                checksum.update(window)
            found[key] = checksum.hexdigest()
    return found


def check_crcs(crcs: Mapping[ByteRange, int], check: Callable[[], None]) -> None:
    """Raise CheckpointError if bytes do not have the CRC-32 in ``crcs`` that their file states for them."""
    with FileReader() as readers:
        for place, stated in crcs.items():
            check()
            found = 0
            for window in readers.windows([place]):
                found = crc32(window, found)
            if found != stated:
                raise wrong_crc(place)


def notes_on_adapter(adapter: "AdapterOnDisk", accepted: Collection[str]) -> Iterator[str]:
    """A note that the factors of ``adapter`` are not those that it was written with, by its own sidecar.

    Raises CheckpointError if its file shows no other change: then it was damaged.
    """
    path, sidecar = adapter.checkpoint.shards[0].path, adapter.directory / SIDECAR_FILE
    manifest = _manifest_as_written(adapter.directory)
    stated = None if manifest is None else manifest.files.get(path.name)
    if stated is None:
        return
    with FileReader() as readers:
        found = file_checksum(path, readers, nothing)
    if found == stated:
        return
    if stamp_of(path).modified <= stamp_of(sidecar).modified and "checksums" not in accepted:
        raise CheckpointError(
            f"{path} is damaged: it does not have the checksum that {SIDECAR_FILE} records, and is not newer.",
            "Get the file again, or add --accept checksums to use what is there.",
        )
    yield Warn(f"{path.name} of {called(adapter.directory)} was changed since {SIDECAR_FILE} was written beside it.")


def _manifest_as_written(directory: Path) -> Manifest | None:
    """The checksums that ``directory`` carries, None if none can be used."""
    try:
        manifest = read_manifest(directory)
        is_usable = manifest is not None and manifest.algorithm == ALGORITHM
        return manifest if is_usable and is_as_written(directory, text_checksum) else None
    except BridgeError:  # nothing that anything needs
        return None


def compare_with_record(
    record: Recorded, found: Mapping[str, str], model: Model, accepted: Collection[str]
) -> tuple[str, ...]:
    """Notes about tensors whose checksums, ``found`` as their bytes passed, are not the recorded ones.

    Raises CheckpointError if a file whose tensors differ shows no other change: then it was damaged.
    """
    compared = record.tensors.keys() & found.keys()
    different = sorted(key for key in compared if found[key] != record.tensors[key])
    damaged = [key for key in different if key in record.firm]
    if damaged and "checksums" not in accepted:
        place = model.checkpoint.tensors[damaged[0]].data.path
        raise CheckpointError(
            f"{len(damaged)} of {len(compared)} tensors do not have the checksum that {SIDECAR_FILE} records, the "
            f"first of them {damaged[0]} in {place}. The file is damaged: its size and header are as recorded, and it "
            f"is not newer than the record. Or it was trained, and {SIDECAR_FILE} was copied beside it later.",
            "Get the file again, or add --accept checksums to convert what is there.",
        )
    return tuple(_notes(different, compared, sorted(record.tensors.keys() - compared)))


def _notes(different: Collection[str], compared: Collection[str], unread: Sequence[str]) -> Iterator[str]:
    if different:
        yield Warn(
            f"{len(different)} of {len(compared)} tensors do not have the checksums that {SIDECAR_FILE} of the source "
            f"records. The weights were trained since, or they are damaged."
        )
    if unread:
        yield (
            f"{len(unread)} tensors of the source were not compared with its checksums. No pass has read them whole: "
            f"{first_few(unread)}."
        )
