"""Read the .metadata of torch.distributed.checkpoint, which is a pickle, trusting nothing in it. Imports torch."""

import pickle
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from internvl_bridge.checkpoint.dumps.boxes import Box
from internvl_bridge.errors import CheckpointError, shown
from internvl_bridge.stand_ins import POINTER_START, lfs_pointer
from internvl_bridge.storage.byte_range import ByteRange

CONSOLIDATE = (
    "Where you trust it, consolidate it with torch.distributed.checkpoint.format_utils.dcp_to_torch_save, "
    "and convert what that wrote, as pytorch_model.bin."
)
_SAVE_AGAIN = "Save or copy the directory again, with torch.distributed.checkpoint.save."

_LARGEST = 1_000_000_000
"""Bytes; about what six million chunks take."""

_RECORDS = (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorStorageMetadata,
    _StorageInfo,
)
_PROPERTIES = (
    (TensorProperties.__module__, "TensorProperties"),
    ("torch.distributed._shard.sharded_tensor.metadata", "TensorProperties"),  # before torch 2.3
)
_MEMORY_FORMATS = (
    (TensorProperties.__module__, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed._shard.sharded_tensor.metadata", "MEM_FORMAT_ENCODING"),  # before torch 2.3
)
_PATHS = [
    (module, pure + system)
    for module in ("pathlib", "pathlib._local")  # the latter in Python 3.13
    for pure in ("", "Pure")
    for system in ("PosixPath", "WindowsPath")
]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor, and where the torch.save archive that holds it lies."""

    box: Box
    archive: ByteRange


@dataclass(frozen=True, slots=True)
class ChunkedTensor:
    """A tensor as .metadata describes it; whether its chunks tile it is not checked."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What .metadata lists: tensors by their keys, keys of other values, and where each (key, offsets) is stored."""

    path: Path
    tensors: Mapping[str, TensorStorageMetadata]
    others: tuple[str, ...]
    places: Mapping[tuple[str, tuple[int, ...]], _StorageInfo]


def read_metadata(path: Path) -> Contents:
    """Unpickle ``path``; what it names beyond the inert classes of its own format is refused, by name.

    Raises CheckpointError for whatever torch.distributed.checkpoint would not have written.
    """
    if path.stat().st_size > _LARGEST:
        raise malformed(path, f"it has more than {_LARGEST} bytes")
    raw = path.read_bytes()
    if raw.startswith(POINTER_START):
        raise lfs_pointer(path, "the metadata")
    try:
        metadata = _Unpickler(path, raw).load()
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001 (damaged bytes make pickle raise nearly anything)
        raise malformed(path, f"it cannot be unpickled: {shown(str(error) or type(error).__name__)}") from None
    match metadata:
        case Metadata(state_dict_metadata=dict(entries), storage_data=dict(places)):
            return _contents(path, entries, places)
        case _:
            raise malformed(path, "it does not list entries and where they are stored")


def chunked(contents: Contents, key: str) -> ChunkedTensor:
    """The tensor ``key`` with the place of every chunk; of a tensor without elements only the shape."""
    match contents.tensors[key]:
        case TensorStorageMetadata(
            properties=TensorProperties(dtype=torch.dtype() as dtype), size=torch.Size() as shape, chunks=list(chunks)
        ):
            return ChunkedTensor(dtype, tuple(shape), tuple(_chunks(contents, key, chunks)))
        case _:
            raise malformed(contents.path, f"{key} is not described by dtype, size and chunks")


def malformed(path: Path, reason: str) -> CheckpointError:
    """The error for a ``path`` that is no .metadata of torch.distributed.checkpoint, or is damaged."""
    return CheckpointError(f"{path} is not a valid checkpoint of torch.distributed: {reason}.", _SAVE_AGAIN)


def _contents(path: Path, entries: Mapping[Any, Any], places: Mapping[Any, Any]) -> Contents:
    tensors, others = {}, []
    for key, entry in entries.items():
        match key, entry:
            case str(), TensorStorageMetadata():
                tensors[key] = entry
            case str(), BytesStorageMetadata():
                others.append(key)
            case _:
                raise malformed(path, f"its entry {shown(key)} is neither a tensor nor bytes")
    placed = {
        (index.fqn, tuple(index.offset)): info
        for index, info in places.items()
        if isinstance(index, MetadataIndex) and isinstance(index.offset, torch.Size)
    }
    return Contents(path, tensors, tuple(others), placed)


def _chunks(contents: Contents, key: str, chunks: list[Any]) -> Iterator[Chunk]:
    for chunk in chunks:
        match chunk:
            case ChunkStorageMetadata(offsets=torch.Size() as offsets, sizes=torch.Size() as sizes):
                yield Chunk(Box(tuple(offsets), tuple(sizes)), _archive(contents, key, tuple(offsets)))
            case _:
                raise malformed(contents.path, f"a chunk of {key} is not described by offsets and sizes")


def _archive(contents: Contents, key: str, offsets: tuple[int, ...]) -> ByteRange:
    match contents.places.get((key, offsets)):
        case _StorageInfo(relative_path=str(name), offset=int(offset), length=int(length)) as info if (
            offset >= 0 and length >= 0
        ):
            pass
        case _:
            raise malformed(contents.path, f"it does not say where the chunk {list(offsets)} of {key} is stored")
    if info.transform_descriptors:
        raise CheckpointError(
            f"{key} is stored transformed in {contents.path.parent}: {shown(info.transform_descriptors)}.", CONSOLIDATE
        )
    if not name or "\0" in name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise malformed(contents.path, f"it places {key} in {shown(name)}, which is not a file in its directory")
    archive = ByteRange(contents.path.parent / name, offset, length)
    if not archive.path.is_file():
        raise CheckpointError(
            f"{contents.path} places {key} in {name}, which is not there.",
            "The checkpoint is incomplete: save or copy it again, with the files of all ranks.",
        )
    return archive


class _Unpickler(pickle._Unpickler):  # noqa: SLF001
    """Builds the classes of the format and values, and nothing else.

    The interpreter written in Python, as that in C takes gigabytes for a few damaged bytes.
    """

    def __init__(self, path: Path, raw: bytes) -> None:
        super().__init__(BytesIO(raw))
        self._path, self._admitted = path, _admitted()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._admitted:
            raise CheckpointError(f"{self._path} holds more than metadata: it needs {module}.{name}.", CONSOLIDATE)
        return self._admitted[module, name]


def _admitted() -> dict[tuple[str, str], Any]:
    """What a .metadata may name, and what it gets.

    The classes are new ones, derived from torch's: a pickle may set attributes of any class that it is given.
    """
    admitted: dict[tuple[str, str], Any] = {
        (record.__module__, record.__name__): type(record.__name__, (record,), {}) for record in _RECORDS
    }
    properties = type("TensorProperties", (TensorProperties,), {"__setstate__": _set_dtype})
    admitted |= dict.fromkeys(_PROPERTIES, properties)
    admitted |= dict.fromkeys([*_MEMORY_FORMATS, *_PATHS, ("torch.serialization", "_get_layout")], _nothing)
    admitted["builtins", "getattr"] = _nothing  # Python 3.11.0 to 3.11.3 pickles members of enums with it
    admitted |= {("torch", name): value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
    admitted["torch", "Size"] = torch.Size
    admitted["collections", "OrderedDict"] = OrderedDict
    return admitted


def _set_dtype(properties: TensorProperties, state: tuple[torch.dtype, ...]) -> None:
    properties.dtype = state[0]


def _nothing(*_: object) -> None:
    """Stands for values that do not matter here: layouts, memory formats, the directory of the checkpoint."""
