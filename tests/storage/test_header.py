"""Headers of safetensors files: hostile ones are refused, written ones are the library's own."""

import json
import os
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import xxhash
from hypothesis import event, example, given
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.header import (
    DTYPE_BITS,
    Entry,
    byte_length,
    canonical_order,
    encode_header,
    padded,
    read_header,
)


def framed(header: bytes | dict[str, Any], data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def field(dtype: object = "U8", shape: object = (4,), offsets: object = (0, 4), **more: object) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not a valid safetensors file: ")
    assert "save or download it again" in message
    return message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("header") / "model.safetensors"


@pytest.fixture
def promptly() -> Iterator[None]:
    def late(_signal: int, _frame: object) -> None:
        pytest.fail("this takes for ever")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 3)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


# What a header says is what is read


def test_a_header_is_read_in_physical_order_with_its_metadata(path):
    content = framed(
        {
            "late": field("F32", [2, 2], [6, 22]),
            "__metadata__": {"format": "pt", "who": "me"},
            "early": field("BF16", [3], [0, 6]),
            "empty": field("I64", [0, 5], [22, 22]),
        },
        bytes(22),
    )
    path.write_bytes(content)
    header = read_header(path)
    assert list(header.entries.items()) == [
        ("early", Entry("BF16", (3,), 0, 6)),
        ("late", Entry("F32", (2, 2), 6, 22)),
        ("empty", Entry("I64", (0, 5), 22, 22)),
    ]
    assert header.metadata == {"format": "pt", "who": "me"}
    assert header.data_start == len(content) - 22


def test_the_smallest_file_has_no_tensors(path):
    path.write_bytes(framed(b"{}"))
    header = read_header(path)
    assert (header.entries, header.metadata, header.data_start) == ({}, {}, 10)


def test_empty_tensors_may_share_a_place(path):
    nothing = {key: field(shape=[0], offsets=[2, 2]) for key in "xyz"}
    path.write_bytes(
        framed({"b": field(shape=[], offsets=[2, 3]), **nothing, "a": field(shape=[2], offsets=[0, 2])}, b"abc")
    )
    assert list(read_header(path).entries) == ["a", "x", "y", "z", "b"]


@pytest.mark.parametrize("dtype", DTYPE_BITS)
def test_every_dtype_of_the_format_is_read(path, dtype):
    size = 8 * DTYPE_BITS[dtype] // 8
    path.write_bytes(framed({"a": field(dtype, [2, 4], [0, size])}, bytes(size)))
    assert read_header(path).entries == {"a": Entry(dtype, (2, 4), 0, size)}


@given(st.permutations(["dtype", "shape", "data_offsets"]), st.sampled_from([None, 1, 4]), st.integers(0, 9))
def test_the_spelling_of_a_header_does_not_matter(scratch, order, indent, padding):
    entry = {name: field("F16", [2], [0, 4])[name] for name in order}
    text = json.dumps({"\u00e9": entry, "__metadata__": {"\U0001f600": "\u00e9"}}, indent=indent).encode()
    assert b"\\u" in text
    scratch.write_bytes(framed(text + b" " * padding, b"data"))
    header = read_header(scratch)
    assert header.entries == {"\u00e9": Entry("F16", (2,), 0, 4)}
    assert header.metadata == {"\U0001f600": "\u00e9"}


def test_a_link_to_a_file_is_followed(path):
    path.with_name("blob").write_bytes(framed({"a": field()}, b"data"))
    path.symlink_to("blob")
    assert list(read_header(path).entries) == ["a"]


# What is not a file, or only the beginning of one


def test_a_directory_is_refused(path):
    path.mkdir()
    with pytest.raises(CheckpointError, match="not a regular file") as caught:
        read_header(path)
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures("promptly")
def test_a_fifo_is_refused_without_waiting_for_a_writer(path):
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="not a regular file") as caught:
        read_header(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("target", ["nothing", "model.safetensors"])
def test_a_link_that_leads_nowhere_is_refused(path, target):
    path.symlink_to(target)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(path)


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9])
def test_a_file_too_short_for_any_header_is_refused(path, size):
    assert f"it has only {size} bytes" in refusal(path, framed(b"{}")[:size])


VALID = [
    framed(b"{}"),
    save({"a": torch.arange(3)}),
    save({"w": torch.ones(2, 3, dtype=torch.bfloat16), "b": torch.zeros(0)}, metadata={"format": "pt"}),
    framed({"a": field(shape=[0], offsets=[0, 0])}),
]


@pytest.mark.parametrize("content", VALID, ids=len)
def test_every_strict_prefix_of_a_valid_file_is_refused(path, content):
    path.write_bytes(content)
    read_header(path)
    for length in range(len(content)):
        refusal(path, content[:length])


@pytest.mark.parametrize("content", VALID, ids=len)
@pytest.mark.parametrize("extra", [b"\x00", b" ", b"{}", bytes(4096)], ids=len)
def test_trailing_bytes_are_refused(path, content, extra):
    message = refusal(path, content + extra)
    assert f"its tensors end at byte {len(content)}, but the file has {len(content + extra)} bytes" in message


# The length of the header


@pytest.mark.parametrize("length", [93, 94, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_header_longer_than_the_file_is_refused(path, length):
    content = struct.pack("<Q", length) + b"{}".ljust(92)
    assert f"header claims {length} bytes of a file of 100" in refusal(path, content)


def test_a_header_of_more_than_100_mb_is_refused_even_if_the_file_has_them(path):
    path.write_bytes(struct.pack("<Q", 100_000_001) + b"{}")
    os.truncate(path, 100_000_009)
    with pytest.raises(CheckpointError, match="header claims 100000001 bytes"):
        read_header(path)


@pytest.mark.parametrize(
    "header", [b" {}", b"\n{}", b"[]", b"\x00\x00", b"null", b"", b"\xef\xbb\xbf{}", b"PK\x03\x04"]
)
def test_a_header_must_start_with_a_brace(path, header):
    assert "does not start with '{'" in refusal(path, framed(header, b"data"))


# The JSON of the header


ENTRY = b'{"dtype":"U8","shape":[4],"data_offsets":[0,4]}'


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b'{"a":', "not JSON"),
        (b'{"a":' + ENTRY + b"}x", "not JSON"),
        (b'{"a":' + ENTRY + b",}", "not JSON"),
        (b'{"a":' + ENTRY + b"}\x00", "not JSON"),
        (b'{"\xff":' + ENTRY + b"}", "not valid Unicode"),
        (b'{"\xed\xa0\x80":' + ENTRY + b"}", "not valid Unicode"),
        (b'{"\\ud800":' + ENTRY + b"}", "not valid Unicode"),
        (b'{"__metadata__":{"a":"\\udfff"},"a":' + ENTRY + b"}", "not valid Unicode"),
        (b'{"a":' + ENTRY + b',"a":' + ENTRY + b"}", "the key 'a' appears twice"),
        (b'{"a":' + ENTRY + b',"\\u0061":' + ENTRY + b"}", "the key 'a' appears twice"),
        (b'{"a":' + ENTRY[:-1] + b',"dtype":"I8"}}', "the key 'dtype' appears twice"),
        (b'{"__metadata__":{"x":"1","x":"1"},"a":' + ENTRY + b"}", "the key 'x' appears twice"),
        (b'{"__metadata__":{},"__metadata__":{},"a":' + ENTRY + b"}", "the key '__metadata__' appears twice"),
        (b'{"a":{"dtype":"U8","shape":[NaN],"data_offsets":[0,4]}}', "NaN is not a number"),
        (b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,Infinity]}}', "Infinity is not a number"),
        (b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[-Infinity,4]}}', "-Infinity is not a number"),
        (b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[-0,4]}}', "-0 is not a whole number"),
        (b'{"a":{"dtype":"U8","shape":[4,-0],"data_offsets":[0,0]}}', "-0 is not a whole number"),
        (b'{"a":' + b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a":{"dtype":"U8","shape":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "nested too deeply"),
    ],
    ids=lambda value: ascii(value[:60]),
)
def test_a_header_that_is_not_strict_json_is_refused(path, header, words):
    message = refusal(path, framed(header, b"data"))
    assert "file: its header is " in message
    assert words in message


def test_no_metadata_may_be_spelled_as_null(path):
    path.write_bytes(framed(b'{"__metadata__":null}', b""))
    assert read_header(path).metadata == {}


@pytest.mark.parametrize(
    "metadata",
    [[], "text", 1, True, {"a": 1}, {"a": None}, {"a": ["b"]}, {"a": {}}, {"a": "b", "c": 1.5}],
)
def test_metadata_must_be_a_map_of_strings(path, metadata):
    content = framed({"__metadata__": metadata, "a": field()}, b"data")
    assert "__metadata__ is not a map of strings" in refusal(path, content)


def test_a_tensor_cannot_pose_as_the_metadata(path):
    assert "__metadata__ is not a map of strings" in refusal(path, framed({"__metadata__": field()}, b"data"))


# The entry of a tensor


@pytest.mark.parametrize(
    "entry",
    [
        None,
        4,
        "U8",
        [],
        ["U8", [4], [0, 4]],
        {},
        {"dtype": "U8", "shape": [4]},
        {"dtype": "U8", "data_offsets": [0, 4]},
        {"shape": [4], "data_offsets": [0, 4]},
        field(extra=1),
        field(dtype=8),
        field(dtype=None),
        field(dtype=["U8"]),
        field(shape=4),
        field(shape="4"),
        field(shape={"0": 4}),
        field(shape=None),
        field(offsets=[]),
        field(offsets=[4]),
        field(offsets=[0, 2, 4]),
        field(offsets=4),
        field(offsets="04"),
        field(offsets={"0": 0, "4": 4}),
    ],
)
def test_a_tensor_has_exactly_dtype_shape_and_two_offsets(path, entry):
    message = refusal(path, framed({"fine": field(), "layer.weight": entry}, b"data"))
    assert "the tensor layer.weight is not described by dtype, shape and data_offsets" in message


@pytest.mark.parametrize("dtype", ["", "u8", "U8 ", "F31", "float32", "BF16\x00", "Q4"])
def test_an_unknown_dtype_is_named(path, dtype):
    assert f"the tensor layer.weight has the unknown dtype {dtype}" in refusal(
        path, framed({"layer.weight": field(dtype=dtype)}, b"data")
    )


@pytest.mark.parametrize(
    "number",
    [-1, -(2**63), 2**63, 2**64, 2**64 + 4, 10**30, 4.0, 4.5, True, False, "4", None, [4], {}],
)
@pytest.mark.parametrize("place", ["shape", "start", "stop"])
def test_only_whole_numbers_below_2_to_the_63_are_sizes_and_offsets(path, number, place):
    entry = field(
        shape=[number] if place == "shape" else [4],
        offsets=[number if place == "start" else 0, number if place == "stop" else 4],
    )
    message = refusal(path, framed({"layer.weight": entry}, b"data"))
    assert "the tensor layer.weight has a size or offset that is not a whole number below 2^63" in message


@pytest.mark.parametrize(
    ("dtype", "shape", "offsets"),
    [
        ("U8", [3], [0, 4]),
        ("U8", [5], [0, 4]),
        ("F32", [4], [0, 4]),
        ("U8", [], [0, 4]),
        ("U8", [4, 0], [0, 4]),
        ("U8", [4], [0, 0]),
        ("U8", [4], [4, 0]),
        ("U8", [4], [2, 4]),
        ("U8", [2**62], [0, 4]),
        ("U8", [2**62, 2**62], [0, 4]),
        ("U8", [2**62, 2, 2], [0, 0]),
        ("F64", [2**61 + 1], [0, 8]),
        ("F4", [3], [0, 1]),
        ("F4", [3], [0, 2]),
        ("F6_E2M3", [3], [0, 2]),
        ("F6_E3M2", [3], [0, 3]),
    ],
)
def test_shape_and_dtype_must_account_for_every_byte(path, dtype, shape, offsets):
    message = refusal(path, framed({"layer.weight": field(dtype, shape, offsets)}, b"data"))
    assert f"the tensor layer.weight ({dtype} {shape}) does not fit its {offsets[1] - offsets[0]} bytes" in message


@pytest.mark.parametrize("shape", [[2**62, 4, 0], [2**32, 2**32, 0], [2**62, 2**62, 2**62, 0], [3, 2**62, 2**62, 0, 5]])
def test_an_empty_tensor_whose_dimensions_overflow_is_refused_as_the_library_does(path, shape):
    content = framed({"layer.weight": field(shape=shape, offsets=[0, 0])})
    with pytest.raises(safetensors.SafetensorError, match="overflow"):
        safetensors.deserialize(content)
    assert "layer.weight" in refusal(path, content)


# Where the tensors lie


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ((0, 4), (2, 6), "overlaps the data of the tensor second"),
        ((0, 4), (0, 4), "overlaps the data of the tensor second"),
        ((0, 8), (2, 4), "overlaps the data of the tensor second"),
        ((0, 2), (4, 8), "leaves a hole before the tensor second"),
        ((1, 4), (4, 8), "leaves a hole before the tensor first"),
        ((0, 4), (4, 7), "its tensors end at byte"),
        ((0, 4), (4, 9), "its tensors end at byte"),
        ((0, 0), (0, 0), "its tensors end at byte"),
        ((0, 4), (4, 2**62), "its tensors end at byte"),
        ((4, 4), (0, 8), "overlaps the data of the tensor first"),
        ((9, 9), (0, 8), "leaves a hole before the tensor first"),
    ],
)
@pytest.mark.parametrize("swapped", [False, True])
def test_the_tensors_must_fill_the_data_without_hole_or_overlap(path, first, second, words, swapped):
    entries = {
        key: field(shape=[stop - start], offsets=[start, stop])
        for key, (start, stop) in (("first", first), ("second", second))
    }
    if swapped:
        entries = dict(reversed(entries.items()))
    message = refusal(path, framed(entries, bytes(8)))
    if first == second and swapped:
        words = words.replace("second", "first")
    assert words in message


# A hostile header costs no more time than it takes to read it


@pytest.mark.usefixtures("promptly")
def test_many_keys_of_which_the_last_is_a_repetition_are_refused_promptly(path):
    keys = [b'"%d":1' % number for number in range(60_000)]
    assert "'twice' appears twice" in refusal(
        path, framed(b"{" + b",".join([*keys, b'"twice":1', b'"twice":1']) + b"}")
    )


@pytest.mark.usefixtures("promptly")
def test_many_huge_dimensions_are_refused_promptly(path):
    content = framed({"layer.weight": field(shape=[2**62] * 70_000, offsets=[0, 0])})
    assert "layer.weight" in refusal(path, content)


# Nothing that the safetensors library refuses is accepted


def accepted_by_both(path: Path, content: bytes) -> bool:
    """Whether our reader accepts; if so, assert that the library does and sees the same."""
    path.write_bytes(content)
    try:
        header = read_header(path)
    except CheckpointError:
        return False
    theirs = dict(safetensors.deserialize(content))
    ours = {
        key: {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data": content[header.data_start + entry.start : header.data_start + entry.stop],
        }
        for key, entry in header.entries.items()
    }
    assert ours == theirs
    with safetensors.safe_open(path, framework="pt") as file:
        slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
        assert {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()} == {
            key: (entry.dtype, entry.shape) for key, entry in header.entries.items()
        }
        assert (file.metadata() or {}) == header.metadata
    return True


BASES = [
    *VALID,
    save(
        {"a": torch.ones(2, 2), "\u00e9": torch.arange(4, dtype=torch.uint8), "z": torch.zeros(0, 3)},
        {"k": "v"},
    ),
    framed({"a": field("F4", [2, 4], [0, 4]), "b": field("C64", [1], [4, 12])}, bytes(12)),
]
TOKENS = [
    b"-0",
    b"1.0",
    b"4e0",
    b"NaN",
    b"null",
    b"true",
    b'"',
    b"\\",
    b"\\u0061",
    b"\\ud800",
    b",",
    b"[",
    b"]",
    b"{",
    b"}",
]
TOKENS += [b" ", b"\n", b"\x00", b"\x7f", b"\xff", b"\xed\xa0\x80", b"0", b"9", b"4611686018427387904,"]


@given(
    st.sampled_from(BASES),
    st.lists(
        st.tuples(st.integers(0), st.sampled_from(TOKENS) | st.binary(max_size=2), st.integers(0, 2)),
        max_size=3,
    ),
    st.booleans(),
)
def test_after_damage_to_its_bytes_nothing_is_accepted_that_the_library_refuses(scratch, content, damage, refit):
    for place, inserted, removed in damage:
        at = place % (len(content) + 1)
        content = content[:at] + inserted + content[at + removed :]
    if refit:  # so that the length of the header is not all that is wrong
        start = min(len(content), 8)
        end = content.rfind(b"}") + 1
        content = framed(content[start:end], content[end:])
    event(f"accepted: {accepted_by_both(scratch, content)}")


@pytest.mark.parametrize("content", BASES, ids=len)
def test_after_a_single_flipped_bit_nothing_is_accepted_that_the_library_refuses(scratch, content):
    outcomes = set()
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            outcomes.add(accepted_by_both(scratch, bytes(flipped)))
    assert False in outcomes


NUMBERS = st.sampled_from(
    [0, 1, 2, 3, 4, 8, 12, 2**31, 2**32, 2**62, 2**63 - 1, 2**63, 2**64, -1, 1.0, True, "4", None]
)
EDITS = st.one_of(
    st.tuples(st.just("dtype"), st.sampled_from([*DTYPE_BITS, "F31", "", 8, None])),
    st.tuples(st.just("shape"), st.lists(NUMBERS, max_size=4)),
    st.tuples(st.just("data_offsets"), st.lists(NUMBERS, min_size=1, max_size=3)),
    st.tuples(st.just("extra"), NUMBERS),
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "\u00e9"]), st.lists(EDITS, max_size=3), min_size=1),
    st.sampled_from([0, 4, 8, 12]),
)
@example({"a": [("shape", [2**62, 4, 0]), ("data_offsets", [0, 0])]}, 0)
@example({"a": [("shape", [0, 2**62, 4]), ("data_offsets", [0, 0])]}, 0)
def test_after_edits_of_its_fields_nothing_is_accepted_that_the_library_refuses(scratch, edits, size):
    entries = {
        key: {**field(offsets=[4 * n, 4 * n + 4]), **dict(changes)} for n, (key, changes) in enumerate(edits.items())
    }
    event(f"accepted: {accepted_by_both(scratch, framed(entries, bytes(size)))}")


# What is written is what the library writes


def savable(dtype: torch.dtype) -> bool:
    try:
        save({"a": torch.zeros(16, dtype=torch.uint8).view(dtype)})
    except (KeyError, ValueError, RuntimeError):
        return False
    return True


DTYPES = sorted({value for value in vars(torch).values() if isinstance(value, torch.dtype) and savable(value)}, key=str)
NAMES = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "__metadata__")


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    packed = str(dtype).endswith("_x2")  # has no scalars: two elements share a byte
    shape = draw(st.lists(st.integers(0, 3), min_size=int(packed), max_size=3))
    size = int(torch.Size(shape).numel()) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    if not data:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype).reshape(shape)


TENSOR_SETS = st.dictionaries(NAMES, tensors(), min_size=1, max_size=8)
ONE_PAIR = st.none() | st.dictionaries(NAMES, NAMES, min_size=1, max_size=1)  # the library does not order several


def rewritten(written: bytes, metadata: dict[str, str] | None) -> bytes:
    """The file ``written`` by the library, put together again from its tensors in another order."""
    stored = dict(sorted(safetensors.deserialize(written), reverse=True))
    entries, data = {}, b""
    for key in canonical_order((key, tensor["dtype"]) for key, tensor in stored.items()):
        tensor = stored[key]
        entries[key] = Entry(tensor["dtype"], tuple(tensor["shape"]), len(data), len(data) + len(tensor["data"]))
        data += tensor["data"]
    return encode_header(entries, metadata or {}) + data


def test_the_dtypes_of_checkpoints_are_among_those_that_are_tried():
    assert {
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.float8_e4m3fn,
        torch.int64,
        torch.bool,
    } <= set(DTYPES)


def test_all_dtypes_together_are_written_as_the_library_does():
    every = {f"{n % 3}.{dtype}": torch.zeros(16, dtype=torch.uint8).view(dtype) for n, dtype in enumerate(DTYPES)}
    assert rewritten(save(every), None) == save(every)


@given(TENSOR_SETS, ONE_PAIR)
def test_header_and_order_are_those_of_safetensors_save(state, metadata):
    written = save(state, metadata=metadata)
    assert rewritten(written, metadata) == written


@given(TENSOR_SETS, ONE_PAIR)
def test_header_and_order_are_those_of_safetensors_save_file(scratch, state, metadata):
    save_file(state, scratch, metadata=metadata)
    written = scratch.read_bytes()
    assert rewritten(written, metadata) == written


@given(st.dictionaries(NAMES, NAMES, min_size=2))
def test_all_pairs_of_the_metadata_reach_the_library(scratch, metadata):
    scratch.write_bytes(encode_header({"a": Entry("U8", (2,), 0, 2)}, metadata) + b"ab")
    with safetensors.safe_open(scratch, framework="pt") as file:
        assert file.metadata() == metadata


@given(TENSOR_SETS, st.none() | st.dictionaries(NAMES, NAMES, min_size=1))
def test_what_the_library_writes_is_accepted_and_seen_alike(scratch, state, metadata):
    assert accepted_by_both(scratch, save(state, metadata=metadata))


@given(st.binary(max_size=4), NAMES)
def test_the_data_starts_at_a_multiple_of_eight(data, name):
    header = encode_header({name: Entry("U8", (len(data),), 0, len(data))}, {})
    assert len(header) % 8 == 0
    assert struct.unpack("<Q", header[:8])[0] == len(header) - 8


@given(TENSOR_SETS, ONE_PAIR, st.integers(0, 6000))
def test_spaces_lead_to_data_that_starts_later_and_the_library_reads_the_same(scratch, state, metadata, more):
    """What is added is spaces within the length that the header says; nothing is where the data starts late enough."""
    written = save(state, metadata=metadata)
    scratch.write_bytes(written)
    shortest = read_header(scratch)
    for data_start in (shortest.data_start + 8 * more, shortest.data_start - min(more, shortest.data_start)):
        header = padded(encode_header(shortest.entries, metadata or {}), data_start)
        start = max(data_start, shortest.data_start)
        assert len(header) == start
        assert header[8:] == written[8 : shortest.data_start].ljust(start - 8)
        scratch.write_bytes(header + written[shortest.data_start :])
        assert accepted_by_both(scratch, scratch.read_bytes())
        read = read_header(scratch)
        assert (read.entries, read.metadata, read.data_start) == (shortest.entries, metadata or {}, start)
        loaded = load_file(scratch)
        assert save(loaded, metadata=metadata) == written


def test_a_header_is_known_by_the_checksum_of_its_bytes(path):
    contents = [framed({"a": field()}, b"data"), framed(json.dumps({"a": field()}).encode() + b" ", b"data")]
    checksums = []
    for content in contents:
        path.write_bytes(content)
        checksums.append(read_header(path).checksum)
        assert checksums[-1] == xxhash.xxh3_128_hexdigest(content[8:-4])
    assert checksums[0] != checksums[1]
    path.write_bytes(contents[0][:-4] + b"atad")
    assert read_header(path).checksum == checksums[0]  # of the header alone


@pytest.mark.parametrize(
    ("dtype", "elements", "length"),
    [
        ("F32", 3, 12),
        ("BOOL", 3, 3),
        ("F4", 2, 1),
        ("F4", 3, None),
        ("F6_E2M3", 4, 3),
        ("F6_E2M3", 2, None),
        ("C64", 0, 0),
    ],
)
def test_numbers_of_less_than_a_byte_may_end_within_one(dtype, elements, length):
    assert byte_length(dtype, elements) == length
