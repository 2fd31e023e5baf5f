"""Open a directory of safetensors files as one checkpoint, or refuse it."""

import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from internvl_bridge.errors import CheckpointError, first_few
from internvl_bridge.stand_ins import gone, other_directory
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.comparing import first_difference
from internvl_bridge.storage.consumed import Consumption
from internvl_bridge.storage.header import Header, parse_alone, parse_start, read_header, read_start
from internvl_bridge.storage.index import (
    check_index,
    complete_set,
    missing_shards,
    read_index,
    stale_files,
    stored_twice,
)
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.stamps import Stamp, stamp_of
from internvl_bridge.work.progress import nothing

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
HEADER_SUFFIX = ".header"
"""Of a file that holds what another one has before its data section, and stands for it."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a checkpoint, the metadata in its header, and what it was when that was read.

    ``is_absent``: only its header is known. An earlier run has deleted it, or it is elsewhere.
    """

    path: Path
    metadata: Mapping[str, str]
    stamp: Stamp
    is_absent: bool = False


# A named tuple, as there is one for every tensor: a frozen dataclass takes twice as long to make.
class StoredTensor(NamedTuple):
    """A tensor on disk: safetensors dtype, shape, and where its bytes are.

    ``shard`` is the index of its file in the checkpoint.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    data: ByteRange

    @property
    def ranges(self) -> tuple[ByteRange, ...]:
        return (self.data,)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All tensors of a directory, in physical order, shard by shard.

    ``index_metadata`` is the ``metadata`` of the index file (empty without one). ``remarks`` say what was found beside
    what was expected, and what was made of it.
    """

    directory: Path
    shards: tuple[Shard, ...]
    tensors: Mapping[str, StoredTensor]
    index_metadata: Mapping[str, Any]
    remarks: tuple[str, ...] = ()

    @property
    def data_bytes(self) -> int:
        return sum(tensor.data.length for tensor in self.tensors.values())


def open_checkpoint(directory: Path, consumption: Consumption | None = None) -> Checkpoint:
    """Read the headers and the index of ``directory``; tensor data only where two shards without an index hold one key.

    Symbolic links (a hub cache) are followed. Files whose names start with a dot are nobody's. An index that does not
    fit a complete set of shards is stale: then their headers say what is where. Files that share no tensor with the
    checkpoint are left alone. Of files that ``consumption`` has deleted, the headers are known all the same. A
    file NAME.header stands for the file NAME: it holds what that has before its data section.

    Raises CheckpointError unless every other safetensors file belongs to the checkpoint, and every tensor has one
    place: the file that the index names, or the only one that holds it.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory.", "Give the directory of a checkpoint.")
    weight_map, index_metadata = read_index(directory / INDEX_FILE, ".safetensors")
    named = [SINGLE_FILE] if weight_map is None else sorted(set(weight_map.values()))
    found = {path.name for path in directory.glob("*.safetensors") if path.is_file()}
    found = {name for name in found if name in named or not name.startswith(".")}
    found |= {path.name.removesuffix(HEADER_SUFFIX) for path in directory.glob(f"*.safetensors{HEADER_SUFFIX}")}
    if consumption is not None and _is_of(consumption, named, found):
        found |= consumption.starts.keys()
    files = {name: _read(directory / name, consumption) for name in named if name in found}
    complete = complete_set(found)
    remarks: list[str] = []
    if complete and not (_fits(named, weight_map, files) and not set(named) < set(complete)):
        remarks.append(_rebuilt(weight_map))
        files, weight_map = {name: files.get(name) or _read(directory / name, consumption) for name in complete}, None
    elif weight_map is None and not files:
        raise _no_weights(directory, sorted(found))
    elif missing := [name for name in named if name not in files]:
        raise gone(directory / missing[0]) or missing_shards(directory / INDEX_FILE, missing)
    shards, tensors, doubles = _gathered(files, weight_map)
    if weight_map is not None:
        check_index(directory / INDEX_FILE, weight_map, _files_of(tensors, shards))
    others = found - files.keys()
    left = _left_alone(others, tensors, SINGLE_FILE if weight_map is None else INDEX_FILE, directory)
    if absent := [shard.path.name for shard in shards if shard.is_absent and is_elsewhere(shard.path)]:
        remarks.append(f"Only the headers are here of {first_few(absent)}: nothing looked at their data.")
    return Checkpoint(directory, shards, tensors, index_metadata, (*remarks, *doubles, *left))


def open_file(path: Path) -> Checkpoint:
    """The tensors of one safetensors file, whatever its name. Raises CheckpointError if it is malformed."""
    shards, tensors, _ = _gathered({path.name: _read(path)}, None)
    return Checkpoint(path.parent, shards, tensors, {})


@dataclass(frozen=True, slots=True)
class _File:
    """A file whose header was read, and what it was before that."""

    shard: Shard
    header: Header


def _read(path: Path, consumption: Consumption | None = None) -> _File:
    if consumption is not None and consumption.is_gone(path):
        return _remembered(path, consumption)
    if is_elsewhere(path):
        return _elsewhere(path)
    stamp = stamp_of(path)  # before the header is read: a change in between is noticed later
    header = read_header(path)
    return _File(Shard(path, header.metadata, replace(stamp, header=header.checksum)), header)


def _is_of(consumption: Consumption, named: Collection[str], found: set[str]) -> bool:
    """Whether what was deleted is of the checkpoint that is there: another one may have taken its place."""
    return not consumption.starts.keys().isdisjoint(named) or not (found & {*named})


def _remembered(path: Path, consumption: Consumption) -> _File:
    file = consumption.files[path.name]
    header = parse_start(path, consumption.starts[path.name], file.size)
    return _File(Shard(path, header.metadata, Stamp(file.size, file.modified, file.header), is_absent=True), header)


def _elsewhere(path: Path) -> _File:
    start, _ = read_start(path.with_name(path.name + HEADER_SUFFIX))
    header = parse_alone(path, start)
    size = header.data_start + max((entry.stop for entry in header.entries.values()), default=0)
    return _File(Shard(path, header.metadata, Stamp(size, 0, header.checksum), is_absent=True), header)


def is_elsewhere(path: Path) -> bool:
    """Whether only the header of the file ``path`` is here, as NAME.header."""
    return not path.exists() and path.with_name(path.name + HEADER_SUFFIX).is_file()


def _fits(named: Iterable[str], weight_map: Mapping[str, str] | None, files: Mapping[str, _File]) -> bool:
    """Whether every file that is named is there, and every tensor where the index says."""
    if any(name not in files for name in named):
        return False
    stored = {key for file in files.values() for key in file.header.entries}
    return weight_map is None or (
        stored == weight_map.keys() and all(key in files[name].header.entries for key, name in weight_map.items())
    )


def _gathered(
    files: Mapping[str, _File], weight_map: Mapping[str, str] | None
) -> tuple[tuple[Shard, ...], dict[str, StoredTensor], list[str]]:
    """The tensors of ``files``, each from the file that the index names; and a remark on those that are there twice.

    Raises CheckpointError for one that two files hold differently, where no index decides.
    """
    tensors: dict[str, StoredTensor] = {}
    unused: dict[str, str] = {}
    for number, (name, file) in enumerate(files.items()):
        for key, entry in file.header.entries.items():
            named = name if weight_map is None else weight_map.get(key, name)
            if named != name and key in files[named].header.entries:
                unused[key] = name
                continue
            byte_range = ByteRange(file.shard.path, file.header.data_start + entry.start, entry.stop - entry.start)
            tensor = StoredTensor(entry.dtype, entry.shape, number, byte_range)
            if key not in tensors:
                tensors[key] = tensor
            elif _same(tensors[key], tensor):
                unused[key] = name
            else:
                raise stored_twice(key, tensors[key].data.path, file.shard.path)
    why = "equals it bit for bit" if weight_map is None else f"is not the one that {INDEX_FILE} names"
    copies = [f"{key} in {name}" for key, name in unused.items()]
    remarks = [f"Tensors are in two files. A copy that {why} is not used: {first_few(copies)}."] if copies else []
    return tuple(file.shard for file in files.values()), tensors, remarks


def _same(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    with FileReader() as ours, FileReader() as theirs:
        left, right = ours.windows(one.ranges), theirs.windows(other.ranges, buffers=2)
        return first_difference(left, right, nothing) is None


def _files_of(tensors: Mapping[str, StoredTensor], shards: Iterable[Shard]) -> dict[str, str]:
    """The name of the file that each of ``tensors`` is in."""
    names = [shard.path.name for shard in shards]
    return {key: names[tensor.shard] for key, tensor in tensors.items()}


def _left_alone(names: Collection[str], tensors: Collection[str], owner: str, directory: Path) -> Iterator[str]:
    """What is said of files that share no tensor with the checkpoint: a value head, an average of its weights.

    Raises CheckpointError for others: they are from another save than the files that ``owner`` knows.
    """
    stale = sorted(name for name in names if not _read(directory / name).header.entries.keys().isdisjoint(tensors))
    if stale:
        raise stale_files(directory, stale, owner)
    if names:
        yield f"These files hold no tensor of the model, and were left alone: {first_few(sorted(names))}."


def _rebuilt(weight_map: Mapping[str, str] | None) -> str:
    if weight_map is None:
        return f"There is no {INDEX_FILE}. The shards are complete, and their headers say what is where."
    return f"{INDEX_FILE} is that of another save. The shards are complete, and their headers say what is where."


def has_weights(directory: Path) -> bool:
    """Whether ``directory`` holds a safetensors checkpoint, valid or not."""
    if (directory / INDEX_FILE).exists() or (directory / SINGLE_FILE).exists() or is_elsewhere(directory / SINGLE_FILE):
        return True
    return complete_set([path.name for path in directory.glob("*.safetensors")]) is not None


def _no_weights(directory: Path, found: list[str]) -> CheckpointError:
    adapter = [name for name in (*found, "adapter_model.bin") if name.startswith("adapter_")]
    adapter = [name for name in adapter if (directory / name).is_file()]
    if adapter:
        return CheckpointError(
            f"{directory} holds an adapter ({first_few(adapter)}), not a whole model.",
            f"Convert it as what it is: internvl-bridge to-hf {shlex.quote(str(directory))} OUTPUT --base BASE, or "
            f"to-custom. Its adapter_config.json must be there, too.",
        )
    lost = (gone(path) for path in sorted(directory.iterdir()) if path.suffix in {".safetensors", ".bin"})
    if (refusal := next(filter(None, lost), None)) or (refusal := other_directory(directory)):
        return refusal
    if found:
        return CheckpointError(
            f"{directory} holds {first_few(found)}, but neither {SINGLE_FILE} nor {INDEX_FILE}.",
            f"Rename a single file to {SINGLE_FILE}; restore the index of several.",
        )
    return CheckpointError(
        f"{directory} holds no {SINGLE_FILE} and no {INDEX_FILE}.", "Give the directory of a checkpoint."
    )
