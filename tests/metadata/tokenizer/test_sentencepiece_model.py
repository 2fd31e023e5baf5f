"""tokenizer.model is read as protobuf reads it, or refused: whatever its bytes are."""

import math
import struct
import tempfile
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor, sentencepiece_model_pb2
from support import DATA

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.metadata.tokenizer.sentencepiece_model import (
    Algorithm,
    PieceKind,
    SentencePieceModel,
    read_sentencepiece_model,
)

STORED = DATA / "tokenizers" / "internlm2" / "tokenizer.model"
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """``value`` as protobuf writes it: seven bits a byte, the lowest first."""
    raw = bytearray()
    while value >= 0x80:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*raw, value])


def tagged(number: int, wire: int, rest: bytes) -> bytes:
    return varint(number << 3 | wire) + rest


def nested(number: int, *fields: bytes) -> bytes:
    message = b"".join(fields)
    return tagged(number, BYTES, varint(len(message)) + message)


def piece(text: bytes | str, score: float = 0.0, kind: int = 1) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return nested(1, nested(1, raw), tagged(2, FIXED32, struct.pack("<f", score)), tagged(3, VARINT, varint(kind)))


UNKNOWN = piece("<unk>", kind=2)
BYTE_PIECES = b"".join(piece(f"<0x{byte:02X}>", kind=6) for byte in range(256))
SMALL = b"".join(
    [
        UNKNOWN,
        piece("<s>", kind=3),
        piece("a", -1.5),
        piece("\N{LOWER ONE EIGHTH BLOCK}é", -2.25),
        nested(2, tagged(3, VARINT, b"\x02"), nested(1, b"corpus.txt"), tagged(10, FIXED32, bytes(4))),
        nested(3, nested(1, b"identity"), tagged(3, VARINT, b"\x00"), tagged(4, VARINT, b"\x00")),
    ]
)


def read(raw: bytes) -> SentencePieceModel:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "tokenizer.model"
        path.write_bytes(raw)
        return read_sentencepiece_model(path)


def refusal(raw: bytes) -> str:
    with pytest.raises(CompanionFileError) as caught:
        read(raw)
    assert "tokenizer.model is not a valid SentencePiece model: " in caught.value.reason
    assert "download tokenizer.model again" in caught.value.remedy
    return caught.value.reason.partition("model: ")[2]


def by_protobuf(raw: bytes) -> dict[str, Any]:
    """What google's library reads. Raises DecodeError if it cannot."""
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(raw)
    return {
        "pieces": [(entry.piece, entry.score, entry.type) for entry in proto.pieces],
        "algorithm": proto.trainer_spec.model_type,
        "byte_fallback": proto.trainer_spec.byte_fallback,
        "treats_whitespace_as_suffix": proto.trainer_spec.treat_whitespace_as_suffix,
        "changes_characters": proto.normalizer_spec.precompiled_charsmap != b"",
        "changes_output": proto.denormalizer_spec.precompiled_charsmap != b"",
        "adds_dummy_prefix": proto.normalizer_spec.add_dummy_prefix,
        "removes_extra_whitespaces": proto.normalizer_spec.remove_extra_whitespaces,
        "escapes_whitespaces": proto.normalizer_spec.escape_whitespaces,
    }


def as_dict(model: SentencePieceModel) -> dict[str, Any]:
    return {
        "pieces": [(entry.text, entry.score, entry.kind.value) for entry in model.pieces],
        "algorithm": model.algorithm.value,
    } | {
        name: getattr(model, name)
        for name in SentencePieceModel.__slots__
        if name not in {"path", "pieces", "algorithm"}
    }


def test_the_stored_model_is_read_as_protobuf_reads_it() -> None:
    model = read_sentencepiece_model(STORED)

    assert as_dict(model) == by_protobuf(STORED.read_bytes())
    assert model.path == STORED
    assert (len(model.pieces), model.algorithm, model.byte_fallback) == (588, Algorithm.BPE, True)
    assert (model.pieces[201].text, model.pieces[201].kind) == ("[UNUSED_TOKEN_198]", PieceKind.USER_DEFINED)


def test_what_a_file_does_not_say_is_sentencepieces_default() -> None:
    model = read(UNKNOWN + nested(1, nested(1, b"x")))

    assert (model.pieces[1].score, model.pieces[1].kind) == (0.0, PieceKind.NORMAL)
    assert model.algorithm is Algorithm.UNIGRAM
    assert (model.adds_dummy_prefix, model.removes_extra_whitespaces, model.escapes_whitespaces) == (True, True, True)
    assert (model.byte_fallback, model.treats_whitespace_as_suffix) == (False, False)
    assert (model.changes_characters, model.changes_output) == (False, False)


@pytest.mark.parametrize("kind", PieceKind)
@pytest.mark.parametrize("algorithm", Algorithm)
def test_enums_have_protobufs_numbers(kind: PieceKind, algorithm: Algorithm) -> None:
    assert kind.value == sentencepiece_model_pb2.ModelProto.SentencePiece.Type.Value(kind.name)
    assert algorithm.value == sentencepiece_model_pb2.TrainerSpec.ModelType.Value(algorithm.name)


@pytest.mark.parametrize(
    ("addition", "name", "value"),
    [
        (nested(2, tagged(24, VARINT, b"\x01")), "treats_whitespace_as_suffix", True),
        (nested(2, tagged(35, VARINT, b"\x01")) + BYTE_PIECES, "byte_fallback", True),
        (nested(2, tagged(3, VARINT, b"\x04")), "algorithm", 4),
        (nested(3, nested(2, b"table")), "changes_characters", True),
        (nested(5, nested(2, b"table")), "changes_output", True),
        (nested(3, tagged(3, VARINT, b"\x01")), "adds_dummy_prefix", True),
        (nested(3, tagged(3, VARINT, varint(2**63))), "adds_dummy_prefix", True),
        (nested(3, tagged(4, VARINT, b"\x01")), "removes_extra_whitespaces", True),
        (nested(3, tagged(5, VARINT, b"\x00")), "escapes_whitespaces", False),
    ],
)
def test_every_setting_is_read_and_the_last_value_wins(addition: bytes, name: str, value: object) -> None:
    model = as_dict(read(SMALL + addition))

    assert model[name] == value != as_dict(read(SMALL))[name]
    assert model == by_protobuf(SMALL + addition)


def test_unknown_fields_are_skipped() -> None:
    strange = [
        tagged(99, VARINT, varint(2**64 - 1)),
        tagged(2**29 - 1, BYTES, b"\x02xy"),
        tagged(7, FIXED64, bytes(8)),
        tagged(8, FIXED32, bytes(4)),
        nested(4, b"\xff"),
    ]

    assert read(b"".join([*strange, SMALL, *strange])).pieces == read(SMALL).pieces
    assert read(SMALL + nested(1, *strange[:4], nested(1, b"x"), *strange[:4])).pieces[-1].text == "x"


def test_a_null_character_is_a_character() -> None:
    assert read(SMALL + piece("\0")).pieces[-1].text == "\0"  # InternLM2 has this piece


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "0 of its 0 pieces stand for unknown text, not one"),
        (piece("a"), "0 of its 1 pieces stand for unknown text, not one"),
        (UNKNOWN + piece("<u>", kind=2), "2 of its 2 pieces stand for unknown text, not one"),
        (UNKNOWN + piece("a") + piece("b") + piece("a", -1, 4), "the piece 'a' appears twice"),
        (UNKNOWN + piece(""), "piece 1 has 0 characters, not 1 to 512"),
        (UNKNOWN + nested(1), "piece 1 has 0 characters, not 1 to 512"),
        (UNKNOWN + piece("x" * 513), "piece 1 has 513 characters, not 1 to 512"),
        (UNKNOWN + piece(b"\xed\xa0\x80"), r"piece 1 is not valid UTF-8: b'\xed\xa0\x80'"),
        (UNKNOWN + piece("a", math.nan), "piece 1, 'a', has the score nan"),
        (UNKNOWN + piece("a", -math.inf), "piece 1, 'a', has the score -inf"),
        (UNKNOWN + piece("a", kind=0), "piece 1, 'a', has the type 0"),
        (UNKNOWN + piece("a", kind=7), "piece 1, 'a', has the type 7"),
        (UNKNOWN + nested(2, tagged(3, VARINT, b"\x05")), "its model type is 5"),
        (UNKNOWN + piece("<0x41>", kind=6), "its byte_fallback is False, but 1 of its pieces stand for bytes"),
        (
            UNKNOWN + nested(2, tagged(35, VARINT, b"\x01")) + piece("<0x41>", kind=6),
            "its byte_fallback is True, but 1 of its pieces stand for bytes",
        ),
        (b"\x80", "it ends within a number"),
        (SMALL + b"\x0a", "it ends within a number"),
        (SMALL + tagged(9, VARINT, b"\x80" * 10 + b"\x00"), "it has a number that does not end within 10 bytes"),
        (SMALL + tagged(9, VARINT, b"\xff" * 9 + b"\x02"), "it has a number that does not end within 10 bytes"),
        (SMALL + b"\x80" * 5 + b"\x00", "it has a number that does not end within 5 bytes"),
        (SMALL + tagged(2**29, VARINT, b"\x00"), "it has a number that does not end within 5 bytes"),
        (SMALL + b"\x02\x00", "there is a field with the number 0"),
        (SMALL + b"\x4b\x4c", "its field 9 is of the unknown wire type 3"),
        (SMALL + tagged(9, 7, b""), "its field 9 is of the unknown wire type 7"),
        (SMALL + tagged(1, BYTES, b"\x05abcd"), "its field 1 claims 5 bytes, but only 4 follow"),
        (SMALL + tagged(9, FIXED64, bytes(7)), "its field 9 claims 8 bytes, but only 7 follow"),
        (SMALL + tagged(9, BYTES, varint(2**32 - 1)), "its field 9 claims 4294967295 bytes, but only 0 follow"),
        (SMALL + tagged(1, VARINT, b"\x01"), "its field 1 is of the wire type 0, another than it must be"),
        (SMALL + tagged(3, FIXED32, bytes(4)), "its field 3 is of the wire type 5, another than it must be"),
        (SMALL + nested(1, nested(2, b"1234")), "its field 2 is of the wire type 2, another than it must be"),
        (SMALL + nested(1, nested(3, b"1")), "its field 3 is of the wire type 2, another than it must be"),
        (SMALL + nested(3, tagged(2, FIXED64, bytes(8))), "its field 2 is of the wire type 1, another than it must be"),
        (SMALL + nested(2, nested(35, b"")), "its field 35 is of the wire type 2, another than it must be"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_model_is_refused(raw: bytes, reason: str) -> None:
    assert refusal(raw).startswith(reason)


def test_a_file_that_is_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    with pytest.raises(CompanionFileError, match=r"tokenizer.model is not a valid .* it has more than 16777216 bytes"):
        read_sentencepiece_model(path)


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir])
def test_a_file_that_is_not_there_is_refused(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "tokenizer.model"
    make(path)

    with pytest.raises(CompanionFileError, match=r"tokenizer.model does not exist, or is not a file. .*--tokenizer"):
        read_sentencepiece_model(path)


def check(raw: bytes) -> bool:
    """Assert that ``raw`` is refused or read as protobuf reads it; return whether it is read."""
    try:
        model = read(raw)
    except CompanionFileError:
        return False
    assert as_dict(model) == by_protobuf(raw)
    return True


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_read_as_protobuf_reads_them(tail: bytes) -> None:
    assert not check(tail)  # no piece for unknown text
    check(SMALL + tail)


@given(st.data())
def test_a_damaged_model_is_refused_or_read_as_protobuf_reads_it(data: st.DataObject) -> None:
    raw = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(raw) - 1))
        replacement = data.draw(st.binary(max_size=2))
        raw[position : position + data.draw(st.integers(0, 2))] = replacement
    check(bytes(raw))


@given(st.integers(0, len(SMALL) - 1))
def test_a_truncated_model_is_what_protobuf_says_it_is(length: int) -> None:
    """Between two fields a message may end; anywhere else neither library takes it."""
    try:
        by_protobuf(SMALL[:length])
    except DecodeError:
        assert refusal(SMALL[:length])


@pytest.mark.parametrize(
    "pieces",
    [[], ["a"], ["<unk>", "<unk>"], ["<unk>", ""], ["<unk>", "a", "a"], ["<unk>", "<0x41>"]],
)
def test_sentencepiece_refuses_the_same_vocabularies(pieces: list[str]) -> None:
    kinds = {"<unk>": 2, "<0x41>": 6}
    raw = b"".join(piece(text, kind=kinds.get(text, 1)) for text in pieces)

    assert refusal(raw)
    with pytest.raises((RuntimeError, ValueError)):
        SentencePieceProcessor().LoadFromSerializedProto(raw)
