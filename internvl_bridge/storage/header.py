"""Read and write the header of a safetensors file, trusting nothing in it."""

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from json.encoder import encode_basestring
from pathlib import Path
from typing import NamedTuple

from internvl_bridge.errors import CheckpointError
from internvl_bridge.stand_ins import POINTER_START, lfs_pointer
from internvl_bridge.storage.checksums import checksum_of
from internvl_bridge.strict_json import parse_json_object

DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
"""Bits per element, in the order in which the safetensors library ranks dtypes."""

LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""

_OVERFLOW = 1 << 63
LENGTH_PREFIX = 8
"""Bytes in front of a header that say how long it is."""
_ALIGNMENT = 8
_FIELDS = {"dtype", "shape", "data_offsets"}
"""Of the description of a tensor."""
_DAMAGED = "The file is damaged or was not written by safetensors: save or download it again."


# A named tuple, as there is one for every tensor: a frozen dataclass takes twice as long to make.
class Entry(NamedTuple):
    """One tensor of a file: dtype, shape and its bytes ``[start, stop)`` within the data section."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """The tensors of a file in physical order, its metadata, where its data section starts, and its checksum."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    data_start: int
    checksum: str


def read_header(path: Path) -> Header:
    """Parse and check the header of ``path``; no byte of tensor data is read.

    Raises CheckpointError unless the header is well formed and its tensors fill the data section
    exactly: no hole, no overlap, nothing outside the file.
    """
    start, size = read_start(path)
    return parse_start(path, start, size)


def read_start(path: Path) -> tuple[bytes, int]:
    """The bytes of ``path`` before its data section, as they are, and the size of the file."""
    if not path.is_file():
        raise _malformed(path, "it is not a regular file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(LENGTH_PREFIX)
        return prefix + file.read(_header_length(path, prefix, size)), size


def parse_alone(path: Path, start: bytes) -> Header:
    """As :func:`read_header`, for a file of which only ``start`` is known: it is as long as its tensors say."""
    fields = parse_json_object(start[LENGTH_PREFIX:], lambda reason: _malformed(path, f"its header is {reason}"))
    ends = [value["data_offsets"][-1] for key, value in fields.items() if key != "__metadata__" and _has_offsets(value)]
    return parse_start(path, start, len(start) + max(ends, default=0))


def _has_offsets(value: object) -> bool:
    match value:
        case {"data_offsets": [_, int()]}:
            return True
        case _:
            return False


def parse_start(path: Path, start: bytes, file_size: int) -> Header:
    """As :func:`read_header`, for a file of ``file_size`` bytes that is still to be written behind ``start``."""
    length = _header_length(path, start[:LENGTH_PREFIX], file_size)
    if len(start) != LENGTH_PREFIX + length:
        raise _malformed(path, f"its header claims {length} bytes, but has {len(start) - LENGTH_PREFIX}")
    return parse_header(path, start[LENGTH_PREFIX:], file_size)


def parse_header(path: Path, raw: bytes, file_size: int) -> Header:
    """Check the header ``raw`` of the file ``path``, which has ``file_size`` bytes in all."""
    if not raw.startswith(b"{"):
        raise _malformed(path, "its header does not start with '{'")
    fields = parse_json_object(raw, lambda reason: _malformed(path, f"its header is {reason}"))
    metadata = fields.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _malformed(path, "its __metadata__ is not a map of strings")
    entries = {key: _entry(path, key, value) for key, value in fields.items()}
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)))
    data_start = LENGTH_PREFIX + len(raw)
    position = 0
    for key, entry in ordered.items():
        if entry.start != position:
            problem = "leaves a hole before" if entry.start > position else "overlaps the data of"
            raise _malformed(path, f"it {problem} the tensor {key}")
        position = entry.stop
    if data_start + position != file_size:
        raise _malformed(path, f"its tensors end at byte {data_start + position}, but the file has {file_size} bytes")
    return Header(ordered, metadata, data_start, checksum_of([raw]))


def encode_header(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    """The bytes before the data section, exactly as the safetensors library writes them."""
    fields = [f'"__metadata__":{_as_json(dict(metadata))}'] if metadata else []
    fields += [_described(key, entry) for key, entry in entries.items()]
    raw = f"{{{','.join(fields)}}}".encode()
    return _prefixed(raw + b" " * (-len(raw) % _ALIGNMENT))


def padded(header: bytes, data_start: int) -> bytes:
    """The same header, its data section moved to ``data_start``; the library, too, ends headers with spaces."""
    return _prefixed(header[LENGTH_PREFIX:].ljust(data_start - LENGTH_PREFIX))


def canonical_order(specs: Iterable[tuple[str, str]]) -> list[str]:
    """Keys of ``(key, dtype)`` pairs in the order in which the safetensors library stores them."""
    rank = {dtype: index for index, dtype in enumerate(DTYPE_BITS)}
    return [key for key, _ in sorted(specs, key=lambda spec: (-rank[spec[1]], spec[0].encode()))]


def byte_length(dtype: str, elements: int) -> int | None:
    """The bytes that ``elements`` numbers of ``dtype`` occupy; None if they end within a byte."""
    length, rest = divmod(elements * DTYPE_BITS[dtype], 8)
    return None if rest else length


def _header_length(path: Path, prefix: bytes, file_size: int) -> int:
    """The bytes of the header behind ``prefix``, which are there and no more than any reader takes."""
    length = int.from_bytes(prefix, "little")
    if file_size < LENGTH_PREFIX + 2:
        raise _malformed(path, f"it has only {file_size} bytes")
    if prefix == POINTER_START[:LENGTH_PREFIX]:
        raise lfs_pointer(path, "the weights")
    if length > min(LONGEST_HEADER, file_size - LENGTH_PREFIX):
        raise _malformed(path, f"its header claims {length} bytes of a file of {file_size}")
    return length


def _prefixed(raw: bytes) -> bytes:
    return len(raw).to_bytes(LENGTH_PREFIX, "little") + raw


def _entry(path: Path, key: str, value: object) -> Entry:
    # Not by match, nor by all: headers are read before anything else begins, and these take four times as long.
    if not isinstance(value, dict) or value.keys() != _FIELDS:
        raise _undescribed(path, key)
    dtype, sizes, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not (isinstance(dtype, str) and isinstance(sizes, list) and isinstance(offsets, list) and len(offsets) == 2):
        raise _undescribed(path, key)
    if dtype not in DTYPE_BITS:
        raise _malformed(path, f"the tensor {key} has the unknown dtype {dtype}")
    for number in (*sizes, *offsets):
        if type(number) is not int or not 0 <= number < _OVERFLOW:
            raise _malformed(path, f"the tensor {key} has a size or offset that is not a whole number below 2^63")
    shape, (start, stop) = tuple(sizes), offsets
    if _byte_length_of(dtype, shape) != stop - start:
        raise _malformed(path, f"the tensor {key} ({dtype} {sizes[:8]}) does not fit its {stop - start} bytes of data")
    return Entry(sys.intern(dtype), shape, start, stop)


def _described(key: str, entry: Entry) -> str:
    """The description of a tensor as the library writes it; to encode nested values takes twice as long."""
    dtype, shape, start, stop = entry
    return (
        f'{encode_basestring(key)}:{{"dtype":"{dtype}","shape":{_shape_text(shape)},"data_offsets":[{start},{stop}]}}'
    )


@lru_cache(maxsize=1024)  # a model has few shapes
def _shape_text(shape: tuple[int, ...]) -> str:
    return _as_json(shape)


def _as_json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _undescribed(path: Path, key: str) -> CheckpointError:
    return _malformed(path, f"the tensor {key} is not described by dtype, shape and data_offsets")


@lru_cache(maxsize=1024)
def _byte_length_of(dtype: str, shape: tuple[int, ...]) -> int | None:
    """The bytes of a tensor; None where the safetensors library would overflow, even if a later size is 0."""
    elements = 1
    for size in shape:
        elements *= size
        if elements >= _OVERFLOW:
            return None
    return byte_length(dtype, elements)


def _malformed(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a valid safetensors file: {reason}.", _DAMAGED)
