"""Find the tensors of one torch.save archive as byte ranges of its file; no tensor data is read. Imports torch.

torch's own reader unpickles the archive, restricted to tensors and plain values, with tensors that have no
memory. The standard library's reader looks at the same archive, and both have to agree about every storage.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from pathlib import Path
from pickle import UnpicklingError
from tarfile import BLOCKSIZE
from typing import IO, cast
from zipfile import ZIP_STORED, ZipFile, ZipInfo
from zlib import crc32

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from internvl_bridge.checkpoint.torch_dtypes import TORCH_DTYPES
from internvl_bridge.errors import CheckpointError, shown
from internvl_bridge.stand_ins import POINTER_START, lfs_pointer
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.file_system import ByteSource
from internvl_bridge.storage.reading import FileReader
from internvl_bridge.storage.source_shards import StoredTensor

_DTYPE_NAMES: Mapping[torch.dtype, str] = {dtype: name for name, dtype in TORCH_DTYPES.items()}

_LARGEST_READ = 100_000_000
"""Bytes; far more than the directory or the pickle of any model, and far less than would hurt."""

_LOCAL_HEADER = 30
_ENCRYPTED, _DESCRIBED = 1, 8
_DESCRIPTORS = (16, 24)
"""Bytes that may follow a record, if it is said to have a descriptor."""

_DAMAGED = "The file is damaged or was not written by torch.save: save or download it again."
_SAVE_AGAIN = "Load it with a current torch where you trust it, and save it again: torch.save(model.state_dict(), ...)."
_TENSORS_ONLY = "Save tensors only: torch.save(model.state_dict(), ...), or the model with safe_serialization=True."


@dataclass(frozen=True, slots=True)
class Archive:
    """An unpickled object whose tensors have no memory, and the storages ``{offset: length}`` of its file.

    ``crcs`` are the CRC-32 that the file states for storages, by offset; torch may have been told to write none.
    """

    byte_range: ByteRange
    content: object
    storages: Mapping[int, int]
    crcs: Mapping[int, int]


def read_archive(byte_range: ByteRange, reader: FileReader, fake: FakeTensorMode) -> Archive:
    """Unpickle the archive that ``byte_range`` of a file is, without its tensors' data.

    Nothing that the pickle names is called, but for what builds tensors. ``fake`` may serve many archives. Raises
    CheckpointError unless it is an archive of torch.save that holds only tensors and plain values. It must be stored
    uncompressed, in this machine's byte order, and without overlaps.
    """
    size = reader.file_system.stamp(byte_range.path).size
    if byte_range.offset + byte_range.length > size:
        end = byte_range.offset + byte_range.length
        raise _malformed(byte_range.path, f"it has only {size} bytes, and its contents should end at byte {end}")
    window = _Window(byte_range, reader.source(byte_range.path))
    _check_kind(byte_range.path, window.at(0, BLOCKSIZE))
    records = _storages(byte_range, window)
    window.seek(0)
    try:
        with warnings.catch_warnings(), fake:
            warnings.simplefilter("ignore")  # about pickle protocols and the like: what matters is refused
            content = torch.load(cast("IO[bytes]", window), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 (damaged bytes make torch raise nearly anything)
        raise _refused(byte_range.path, error) from None
    storages = {start: record.file_size for start, record in records.items()}
    crcs = {start: record.CRC for start, record in records.items() if record.CRC}
    return Archive(byte_range, content, storages, crcs)


def find_tensor(archive: Archive, key: str, tensor: torch.Tensor, shard: int) -> StoredTensor:
    """Where the elements of ``tensor``, called ``key`` in the ``archive``, lie in its file.

    Raises CheckpointError unless they are stored one after the other, as plain numbers of a dtype that
    safetensors knows.
    """
    path = archive.byte_range.path
    if type(tensor) is not FakeTensor or tensor.layout is not torch.strided or tensor.is_nested:
        raise CheckpointError(
            f"{key} in {path} is not a plain dense tensor.",
            "Save plain tensors: a DTensor's full_tensor(), a sparse tensor's to_dense().",
        )
    dtype = dtype_name(path, key, tensor.dtype)
    if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
        raise CheckpointError(
            f"{key} in {path} is a view whose elements are not stored in their order.",
            "Call .contiguous() (and .resolve_conj() on complex tensors) on it before saving.",
        )
    storage = tensor.untyped_storage()
    offset = storage._checkpoint_offset  # noqa: SLF001 (where torch keeps it)
    if offset is None:
        raise CheckpointError(
            f"{key} in {path} was saved without data, from torch's meta device.",
            "Load the weights before saving the model.",
        )
    length = archive.storages.get(offset)
    if length is None or storage.nbytes() not in (length, length * tensor.itemsize):  # torch 2.7 counts elements twice
        raise _malformed(path, f"the storage of {key} is not one of its records")
    start = int(tensor.storage_offset()) * tensor.itemsize
    if start + tensor.nbytes > length:
        raise _malformed(path, f"{key} reaches beyond its storage")
    return StoredTensor(
        dtype, tuple(tensor.shape), shard, ByteRange(path, archive.byte_range.offset + offset + start, tensor.nbytes)
    )


def dtype_name(path: Path, key: str, dtype: torch.dtype) -> str:
    """The name that safetensors has for the ``dtype`` of the tensor ``key``; raises CheckpointError without one."""
    if dtype not in _DTYPE_NAMES:
        raise CheckpointError(
            f"{key} in {path} has the dtype {dtype}, which safetensors does not have.",
            "Save it in a dtype that models use, such as torch.bfloat16.",
        )
    return _DTYPE_NAMES[dtype]


def _check_kind(path: Path, first: bytes) -> None:
    if first.startswith(b"PK\x03\x04"):
        return
    if not first:
        raise _malformed(path, "it is empty")
    if first.startswith(POINTER_START):
        raise lfs_pointer(path, "the weights")
    if first[257:262] == b"ustar" or first.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"):
        raise CheckpointError(f"{path} has a format of torch before 1.6, which was not a zip archive.", _SAVE_AGAIN)
    raise _malformed(path, "it is not a zip archive")


def _storages(byte_range: ByteRange, window: "_Window") -> Mapping[int, ZipInfo]:
    """The records of the archive that hold storages, by their offset within ``byte_range``."""
    try:
        with ZipFile(window) as archive:
            records, end = archive.infolist(), archive.start_dir
    except Exception as error:  # noqa: BLE001 (damaged bytes make zipfile raise nearly anything)
        raise _malformed(byte_range.path, f"its zip directory cannot be read: {_first_line(error)}") from None
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise CheckpointError(
            f"{byte_range.path} is a TorchScript archive, a program and not weights.",
            "Save the weights of the model that it was made from: torch.save(model.state_dict(), ...).",
        )
    starts = {name: (start, record) for name, start, record in _placed(byte_range.path, window, records, end)}
    if len(starts) != len(records):
        raise _malformed(byte_range.path, "two of its records have one name")
    _check_records(byte_range.path, window, starts)
    data = [(name.removeprefix("data/"), *place) for name, place in starts.items() if name.startswith("data/")]
    names = [name for name, _, _ in data]
    if ".format_version" in starts and names != [str(number) for number in range(len(names))]:
        # There torch computes most offsets from the order, and would take one storage for another.
        raise CheckpointError(f"{byte_range.path} was packed again, with its records in another order.", _SAVE_AGAIN)
    return {start: record for _, start, record in data}


def _placed(path: Path, window: "_Window", records: list[ZipInfo], end: int) -> Iterator[tuple[str, int, ZipInfo]]:
    """Each record in physical order: its name below the top folder, its first byte, its entry in the directory."""
    top = records[0].filename.partition("/")[0] if records else ""
    ordered = sorted(records, key=lambda record: record.header_offset)
    for record, following in zip(ordered, [*(record.header_offset for record in ordered[1:]), end], strict=True):
        if record.compress_type != ZIP_STORED or record.compress_size != record.file_size:
            raise CheckpointError(f"{path} is compressed, which torch.save never does.", _SAVE_AGAIN)
        header = window.at(record.header_offset, _LOCAL_HEADER)
        variable = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = record.header_offset + _LOCAL_HEADER + variable
        stop = start + record.file_size
        described = record.flag_bits & _DESCRIBED and window.at(stop, 4) == b"PK\x07\x08"
        if (
            not header.startswith(b"PK\x03\x04")
            or record.flag_bits & _ENCRYPTED
            or following - stop not in (_DESCRIPTORS if described else (0,))
            or (record.flag_bits & _DESCRIBED and record.file_size and not described)
        ):
            raise _malformed(path, f"its record {shown(record.filename)} does not fill its place")
        folder, _, name = record.filename.partition("/")
        if folder != top:
            raise _malformed(path, "its records are not in one folder")
        yield name.lower(), start, record  # torch looks names up without regard to case


def _check_records(path: Path, window: "_Window", starts: Mapping[str, tuple[int, ZipInfo]]) -> None:
    if "data.pkl" not in starts:
        raise _malformed(path, "it has no data.pkl")
    start, pickled = starts["data.pkl"]
    if pickled.file_size > _LARGEST_READ:
        raise _malformed(path, f"its data.pkl has more than {_LARGEST_READ} bytes")
    if pickled.CRC and crc32(window.at(start, pickled.file_size)) != pickled.CRC:  # torch may be told to write none
        raise _malformed(path, "its data.pkl does not have the checksum that the file names")
    if "byteorder" in starts:
        start, record = starts["byteorder"]
        if window.at(start, min(record.file_size, 8)) != b"little":
            raise CheckpointError(f"{path} was not written by a little-endian machine.", _SAVE_AGAIN)


def _refused(path: Path, error: Exception) -> CheckpointError:
    if needed := re.search(r"GLOBAL (\S+)", str(error)):
        return CheckpointError(f"{path} holds more than tensors: it needs {shown(needed[1])}.", _TENSORS_ONLY)
    if isinstance(error, UnpicklingError):
        return CheckpointError(f"{path} cannot be read as tensors only: {_first_line(error)}.", _TENSORS_ONLY)
    return _malformed(path, f"torch cannot read it: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    """What went wrong in a line; torch's advice to do without ``weights_only`` is not passed on."""
    lines = (line.strip() for line in str(error).rpartition("WeightsUnpickler error: ")[2].splitlines())
    told = [line for line in lines if line and "weights_only" not in line]
    return shown(told[0].removeprefix("Weights only load failed. ")) if told else type(error).__name__


def _malformed(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a valid file of torch.save: {reason}.", _DAMAGED)


class _Window(RawIOBase):
    """A piece of an open file, as a file of its own; torch's and zipfile's readers want a file object."""

    def __init__(self, byte_range: ByteRange, source: ByteSource) -> None:
        super().__init__()
        self._byte_range, self._source, self._position = byte_range, source, 0

    def at(self, position: int, size: int) -> bytes:
        """At most ``size`` bytes from ``position`` on."""
        room = min(size, self._byte_range.length - position)
        if position < 0 or room <= 0:
            return b""
        data = bytearray(room)
        return bytes(data[: self._source.read_into(memoryview(data), self._byte_range.offset + position)])

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = SEEK_SET, /) -> int:
        position = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._byte_range.length}[whence] + offset
        if position < 0:
            raise ValueError(f"{position} is before the start")
        self._position = position
        return position

    def read(self, size: int | None = -1, /) -> bytes:
        room = max(self._byte_range.length - self._position, 0)
        size = room if size is None or size < 0 else min(size, room)
        if size > _LARGEST_READ:  # only damage makes anybody want so much
            raise ValueError(f"{size} bytes of directory are too many")
        result = self.at(self._position, size)
        self._position += len(result)
        return result

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        result = self.read(len(buffer))
        buffer[: len(result)] = result
        return len(result)
