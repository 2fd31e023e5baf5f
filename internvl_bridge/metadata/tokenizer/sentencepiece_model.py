"""Read a SentencePiece ``tokenizer.model``, trusting nothing in it and importing no protobuf.

The file is one protobuf message, sentencepiece's ``ModelProto``; field numbers and defaults are those of its
``sentencepiece_model.proto``, version 0.2. Fields that do not matter here are skipped. Stricter than protobuf, which
takes a known field of a wrong type for an unknown one: what this module accepts, protobuf understands likewise.
"""

import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from pathlib import Path

from internvl_bridge.errors import CompanionFileError, shown

_LARGEST = 16 << 20
"""Bytes; InternLM2's model has 1.4 MiB, the largest vocabularies in use (262,144 pieces) 5 MiB."""

_LONGEST_PIECE = 512
"""Characters; the longest runs of spaces or dashes in real vocabularies have 128."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}

_LONGEST_VARINT = 10
_LONGEST_SIZE = 5
"""Bytes of a number; tags and lengths have 32 bits, values 64."""

_PIECES, _TRAINER, _NORMALIZER, _DENORMALIZER = 1, 2, 3, 5
"""Fields of ``ModelProto``."""

_BYTE_PIECES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


class PieceKind(Enum):
    """What sentencepiece does with a piece (``ModelProto.SentencePiece.Type``)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Algorithm(Enum):
    """How sentencepiece segments text (``TrainerSpec.ModelType``)."""

    UNIGRAM = 1
    BPE = 2
    WORD = 3
    CHAR = 4


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; its id is its position."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What a ``tokenizer.model`` says about turning text into ids and back.

    ``changes_characters`` says whether a table of replacements (``precompiled_charsmap``) is applied to text,
    ``changes_output`` whether one is applied to decoded text.
    """

    path: Path
    pieces: tuple[Piece, ...]
    algorithm: Algorithm
    byte_fallback: bool
    treats_whitespace_as_suffix: bool
    changes_characters: bool
    changes_output: bool
    adds_dummy_prefix: bool
    removes_extra_whitespaces: bool
    escapes_whitespaces: bool


_KINDS = {kind.value: kind for kind in PieceKind}
_ALGORITHMS = {algorithm.value: algorithm for algorithm in Algorithm}


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message: a number if it is a varint, else its bytes."""

    number: int
    wire: int
    value: int | bytes


def read_sentencepiece_model(path: Path) -> SentencePieceModel:
    """Parse and check the SentencePiece model ``path``.

    Raises CompanionFileError if it is missing, malformed, or what the sentencepiece library would refuse to load.
    """
    if not path.is_file():
        raise CompanionFileError(
            f"{path} does not exist, or is not a file.",
            "Copy tokenizer.model of the base model into the directory, or give one with a tokenizer by --tokenizer.",
        )
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    try:
        return _model(path, data)
    except ValueError as error:
        raise CompanionFileError(
            f"{path} is not a valid SentencePiece model: {error}.",
            "The file is damaged or was not written by sentencepiece: download tokenizer.model again.",
        ) from None


def _model(path: Path, data: bytes) -> SentencePieceModel:
    if len(data) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST} bytes")
    pieces: list[Piece] = []
    sections = {number: bytearray() for number in (_TRAINER, _NORMALIZER, _DENORMALIZER)}
    for field in _fields(data):
        if field.number == _PIECES:
            pieces.append(_piece(_raw(field, _BYTES), len(pieces)))
        elif field.number in sections:
            sections[field.number] += _raw(field, _BYTES)  # as protobuf merges what is repeated: the last value wins
    trainer, normalizer, denormalizer = (_last_fields(bytes(section)) for section in sections.values())
    _check_pieces(pieces, byte_fallback=_flag(trainer, 35, default=False))
    return SentencePieceModel(
        path=path,
        pieces=tuple(pieces),
        algorithm=_algorithm(trainer),
        byte_fallback=_flag(trainer, 35, default=False),
        treats_whitespace_as_suffix=_flag(trainer, 24, default=False),
        changes_characters=_has_bytes(normalizer, 2),
        changes_output=_has_bytes(denormalizer, 2),
        adds_dummy_prefix=_flag(normalizer, 3, default=True),
        removes_extra_whitespaces=_flag(normalizer, 4, default=True),
        escapes_whitespaces=_flag(normalizer, 5, default=True),
    )


def _check_pieces(pieces: list[Piece], *, byte_fallback: bool) -> None:
    """What the sentencepiece library checks when it loads a model."""
    texts = Counter(piece.text for piece in pieces)
    if len(texts) != len(pieces):
        [(twice, _)] = texts.most_common(1)
        raise ValueError(f"the piece {shown(twice)} appears twice")
    unknown = sum(piece.kind is PieceKind.UNKNOWN for piece in pieces)
    if unknown != 1:
        raise ValueError(f"{unknown} of its {len(pieces)} pieces stand for unknown text, not one")
    found = {piece.text for piece in pieces if piece.kind is PieceKind.BYTE}
    if found != (_BYTE_PIECES if byte_fallback else frozenset()):
        raise ValueError(f"its byte_fallback is {byte_fallback}, but {len(found)} of its pieces stand for bytes")


def _algorithm(trainer: Mapping[int, _Field]) -> Algorithm:
    if 3 not in trainer:
        return Algorithm.UNIGRAM
    number = _number(trainer[3])
    if number not in _ALGORITHMS:
        raise ValueError(f"its model type is {number}")
    return _ALGORITHMS[number]


def _piece(message: bytes, index: int) -> Piece:
    raw, score, kind = b"", 0.0, PieceKind.NORMAL.value
    for field in _fields(message):
        if field.number == 1:
            raw = _raw(field, _BYTES)
        elif field.number == 2:
            [score] = struct.unpack("<f", _raw(field, _FIXED32))
        elif field.number == 3:
            kind = _number(field)
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"piece {index} is not valid UTF-8: {shown(raw)}") from None
    if not 0 < len(text) <= _LONGEST_PIECE:
        raise ValueError(f"piece {index} has {len(text)} characters, not 1 to {_LONGEST_PIECE}")
    if not isfinite(score):
        raise ValueError(f"piece {index}, {shown(text)}, has the score {score}")
    if kind not in _KINDS:
        raise ValueError(f"piece {index}, {shown(text)}, has the type {kind}")
    return Piece(text, score, _KINDS[kind])


def _fields(message: bytes) -> Iterator[_Field]:
    """The fields of ``message`` in order. Raises ValueError if it is not in protobuf's wire format."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position, _LONGEST_SIZE)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise ValueError("there is a field with the number 0")
        if wire == _VARINT:
            value, position = _varint(message, position, _LONGEST_VARINT)
            yield _Field(number, wire, value)
            continue
        if wire == _BYTES:
            size, position = _varint(message, position, _LONGEST_SIZE)
        elif wire in _FIXED_SIZES:
            size = _FIXED_SIZES[wire]
        else:  # a group, which no version of sentencepiece writes, or nothing at all
            raise ValueError(f"its field {number} is of the unknown wire type {wire}")
        if size > len(message) - position:
            raise ValueError(f"its field {number} claims {size} bytes, but only {len(message) - position} follow")
        yield _Field(number, wire, message[position : position + size])
        position += size


def _varint(message: bytes, start: int, longest: int) -> tuple[int, int]:
    """The number that starts at ``start`` and takes ``longest`` bytes at most, and where the next byte is."""
    value = 0
    for position in range(start, start + longest):
        if position >= len(message):
            raise ValueError("it ends within a number")
        byte = message[position]
        value |= (byte & 0x7F) << 7 * (position - start)
        if byte < 0x80:
            if value >> (32 if longest == _LONGEST_SIZE else 64):
                break
            return value, position + 1
    raise ValueError(f"it has a number that does not end within {longest} bytes, or is too large")


def _last_fields(message: bytes) -> dict[int, _Field]:
    """The last field of every number, the one that counts."""
    return {field.number: field for field in _fields(message)}


def _flag(fields: Mapping[int, _Field], number: int, *, default: bool) -> bool:
    return bool(_number(fields[number])) if number in fields else default


def _has_bytes(fields: Mapping[int, _Field], number: int) -> bool:
    return number in fields and bool(_raw(fields[number], _BYTES))


def _number(field: _Field) -> int:
    if not isinstance(field.value, int):
        raise _unexpected(field)
    return field.value


def _raw(field: _Field, wire: int) -> bytes:
    if field.wire != wire or isinstance(field.value, int):
        raise _unexpected(field)
    return field.value


def _unexpected(field: _Field) -> ValueError:
    return ValueError(f"its field {field.number} is of the wire type {field.wire}, another than it must be")
