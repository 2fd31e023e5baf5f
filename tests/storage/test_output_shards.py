"""Which tensor goes into which file, in which order, behind which header."""

import json
import re
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import safetensors
import torch
from huggingface_hub import StateDictSplit, split_torch_state_dict_into_shards
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save, save_file
from support import NAMES as CHECKPOINTS

from internvl_bridge.storage import block_alignment
from internvl_bridge.storage.byte_range import ByteRange, coalesced
from internvl_bridge.storage.header import Entry, encode_header, read_header
from internvl_bridge.storage.output_shards import (
    OutputShard,
    ShardContents,
    TargetTensor,
    aligned,
    by_name,
    index_of,
    needs_index,
    output_shards,
    reshard,
)
from internvl_bridge.storage.source_shards import SINGLE_FILE, open_checkpoint

SOURCE = Path("source")


def target(length: int, offset: int = 0, dtype: str = "U8") -> TargetTensor:
    return TargetTensor(dtype, (length,), (ByteRange(SOURCE, offset, length),))


def shards_of(*shards: list[tuple[str, int]]) -> list[ShardContents]:
    return [ShardContents({key: target(length) for key, length in shard}, {}) for shard in shards]


def lengths(shards: list[ShardContents]) -> list[dict[str, int]]:
    return [{key: tensor.length for key, tensor in shard.tensors.items()} for shard in shards]


def content(job: OutputShard) -> bytes:
    return job.header + b"".join(
        byte_range.path.read_bytes()[byte_range.offset : byte_range.offset + byte_range.length]
        for byte_range in job.ranges
    )


# Re-sharding

SHARDS = st.lists(
    st.tuples(st.lists(st.integers(0, 9), max_size=6), st.sampled_from([{}, {"format": "pt"}])), max_size=4
)


def drawn(parts: list[tuple[list[int], dict[str, str]]]) -> list[ShardContents]:
    offset = 0
    shards = []
    for number, (sizes, metadata) in enumerate(parts):
        tensors = {}
        for place, size in enumerate(sizes):
            tensors[f"{number}.{place}"] = target(size, offset)
            offset += size
        shards.append(ShardContents(tensors, metadata))
    return shards


def data_size(shard: ShardContents) -> int:
    return sum(byte_range.length for tensor in shard.tensors.values() for byte_range in tensor.ranges)


@given(SHARDS, st.integers(1, 30))
def test_resharding_changes_no_tensor_and_no_order(parts, limit):
    shards = drawn(parts)
    before = [(key, tensor, shard.metadata) for shard in shards for key, tensor in shard.tensors.items()]
    after = [(k, tensor, shard.metadata) for shard in reshard(shards, limit) for k, tensor in shard.tensors.items()]
    assert after == before


@given(SHARDS, st.integers(1, 30))
def test_a_shard_exceeds_the_limit_only_with_a_single_tensor(parts, limit):
    for shard in reshard(drawn(parts), limit):
        assert shard.tensors
        assert data_size(shard) <= limit or len(shard.tensors) == 1


@given(SHARDS, st.integers(1, 30))
def test_a_new_shard_begins_only_where_the_next_tensor_does_not_fit_or_belong(parts, limit):
    result = reshard(drawn(parts), limit)
    for shard, following in pairwise(result):
        first = next(iter(following.tensors.values()))
        assert data_size(shard) + first.length > limit or shard.metadata != following.metadata


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, [["a"], ["b"], ["c"], ["d"]]),
        (4, [["a"], ["b"], ["c", "d"]]),
        (5, [["a", "b"], ["c", "d"]]),
        (7, [["a", "b"], ["c", "d"]]),
        (8, [["a", "b", "c"], ["d"]]),
        (9, [["a", "b", "c", "d"]]),
        (10**30, [["a", "b", "c", "d"]]),
    ],
)
def test_the_limit_counts_bytes_of_data_across_the_old_shards(limit, expected):
    shards = shards_of([("a", 2), ("b", 3)], [("c", 3), ("d", 1)])
    assert [list(shard.tensors) for shard in reshard(shards, limit)] == expected


def test_a_tensor_larger_than_the_limit_is_alone_even_among_empty_ones():
    shards = shards_of([("a", 0), ("big", 7), ("b", 0), ("c", 2)])
    assert lengths(reshard(shards, 3)) == [{"a": 0}, {"big": 7}, {"b": 0, "c": 2}]


def test_nothing_to_shard_makes_no_shard():
    assert reshard([], 5) == []
    assert reshard(shards_of([], []), 5) == []


def test_shards_with_different_metadata_are_not_merged():
    tensors = [{"a": target(1)}, {"b": target(1)}, {"c": target(1)}]
    labels = [{"format": "pt"}, {"format": "np"}, {"format": "np"}]
    shards = [ShardContents(part, label) for part, label in zip(tensors, labels, strict=True)]
    assert reshard(shards, 100) == [
        ShardContents({"a": target(1)}, {"format": "pt"}),
        ShardContents({"b": target(1), "c": target(1)}, {"format": "np"}),
    ]


def test_the_shards_that_are_given_stay_as_they_are():
    shards = shards_of([("a", 1)], [("b", 1)])
    reshard(shards, 100)
    assert lengths(shards) == [{"a": 1}, {"b": 1}]


# Order within a file

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.float8_e4m3fn,
    torch.bfloat16,
    torch.float16,
    torch.int32,
    torch.float32,
]
DTYPES += [torch.float64, torch.int64, torch.complex64]
NAMES = st.text(st.characters(exclude_categories=["Cs"])).filter(lambda name: name != "__metadata__")
STATES = st.dictionaries(NAMES, st.tuples(st.sampled_from(DTYPES), st.integers(0, 5)), min_size=1, max_size=8)


def state_of(drawn_tensors: dict[str, tuple[torch.dtype, int]]) -> dict[str, torch.Tensor]:
    state = {}
    for number, (name, (dtype, size)) in enumerate(drawn_tensors.items()):
        raw = bytes((number * 31 + i) % 251 for i in range(size * dtype.itemsize))
        state[name] = (
            torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype) if raw else torch.empty(0, dtype=dtype)
        )
    return state


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("layout")


def stored_in_any_order(state: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> ShardContents:
    """A shard whose data lie in ``path`` in the order of ``state``, with gaps between them."""
    data = b""
    tensors = {}
    specs = dict(safetensors.deserialize(save(state)))
    for key in state:
        data += b"gap"
        spec = specs[key]
        byte_range = ByteRange(path, len(data), len(spec["data"]))
        tensors[key] = TargetTensor(spec["dtype"], tuple(spec["shape"]), (byte_range,))
        data += spec["data"]
    path.write_bytes(data)
    return ShardContents(tensors, metadata)


@given(STATES, st.sampled_from([{}, {"format": "pt"}, {"\u00e9\n": '"\u2028\x7f'}]))
def test_by_name_the_file_is_that_of_safetensors_save_and_save_file(scratch, tensors, metadata):
    state = state_of(tensors)
    shard = stored_in_any_order(state, scratch / "data", metadata)
    [job] = output_shards([by_name(shard)])
    assert content(job) == save(state, metadata=metadata or None)
    save_file(state, scratch / "theirs", metadata=metadata or None)
    assert content(job) == (scratch / "theirs").read_bytes()


@given(STATES)
def test_in_any_order_the_library_reads_the_same_tensors(scratch, tensors):
    state = state_of(tensors)
    shard = stored_in_any_order(state, scratch / "data", {"format": "pt"})
    for arranged in (shard, aligned(shard), by_name(shard)):
        [job] = output_shards([arranged])
        (scratch / "ours").write_bytes(content(job))
        assert (scratch / "ours").stat().st_size == job.size
        loaded = load_file(scratch / "ours")
        assert loaded.keys() == state.keys()
        assert {k: (t.dtype, t.shape, t.view(torch.uint8).tolist()) for k, t in loaded.items()} == {
            k: (t.dtype, t.shape, t.view(torch.uint8).tolist()) for k, t in state.items()
        }


@given(STATES)
def test_aligned_tensors_start_at_a_multiple_of_their_elements_size(scratch, tensors):
    state = state_of(tensors)
    directory = scratch / "aligned"
    directory.mkdir(exist_ok=True)
    shard = stored_in_any_order(state, scratch / "data", {})
    [job] = output_shards([aligned(shard)])
    (directory / job.name).write_bytes(content(job))
    for key, tensor in open_checkpoint(directory).tensors.items():
        if tensor.data.length:
            assert tensor.data.offset % state[key].dtype.itemsize == 0


def test_alignment_keeps_the_order_among_dtypes_of_one_width():
    order = [
        ("b", "BF16"),
        ("byte", "U8"),
        ("a", "F16"),
        ("wide", "F32"),
        ("half", "F4"),
        ("int", "I32"),
        ("b2", "BF16"),
    ]
    shard = ShardContents({key: target(4, dtype=dtype) for key, dtype in order}, {"format": "pt"})
    assert list(aligned(shard).tensors) == ["wide", "int", "b", "a", "b2", "byte", "half"]
    assert aligned(shard).tensors == shard.tensors
    assert aligned(shard).metadata == {"format": "pt"}


def test_a_file_of_one_dtype_is_left_in_its_order():
    shard = ShardContents({key: target(4, dtype="BF16") for key in "zaqb"}, {})
    assert list(aligned(shard).tensors) == list("zaqb")


# Where the data starts


@pytest.fixture
def all_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of a few bytes count as those of real models do."""
    monkeypatch.setattr(block_alignment, "_LONG", 8)


BYTES = st.dictionaries(st.text("abcdef", min_size=1), st.tuples(st.just(torch.uint8), st.integers(8, 300)), min_size=1)


@pytest.mark.usefixtures("all_is_long")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BYTES, st.integers(0, 700), st.integers(0, 700))
def test_data_starts_where_it_can_be_shared_and_the_library_reads_the_same(scratch, tensors, before, between):
    state = state_of(tensors)
    data, ranges = bytes(8 * before), {}
    for key, tensor in state.items():
        ranges[key] = TargetTensor("U8", (len(tensor),), (ByteRange(scratch / "data", len(data), len(tensor)),))
        data += bytes(tensor.tolist()) + bytes(between)
    (scratch / "data").write_bytes(data)
    shard = ShardContents(ranges, {"format": "pt"})
    for arranged in (shard, aligned(shard)):
        [job] = output_shards([arranged])
        shortest = encode_header(
            {
                key: Entry("U8", t.shape, start, start + t.length)
                for (key, t), start in zip(
                    arranged.tensors.items(),
                    accumulate([0, *(t.length for t in arranged.tensors.values())]),
                    strict=False,
                )
            },
            shard.metadata,
        )
        assert len(job.header) == block_alignment.congruent_start(len(shortest), job.ranges)
        assert job.header[8:].rstrip() == shortest[8:].rstrip()
        assert len(shortest) <= len(job.header) < len(shortest) + block_alignment.BLOCK
        assert len(job.header) % 8 == 0
        (scratch / "ours").write_bytes(content(job))
        assert (scratch / "ours").stat().st_size == job.size
        loaded = load_file(scratch / "ours")
        assert {key: tensor.tolist() for key, tensor in loaded.items()} == {k: t.tolist() for k, t in state.items()}
        if len(job.ranges) == 1 and job.ranges[0].offset % 8 == 0:
            assert job.ranges[0].offset % block_alignment.BLOCK == len(job.header) % block_alignment.BLOCK


@pytest.mark.usefixtures("all_is_long")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BYTES, st.sampled_from([{}, {"format": "pt"}]))
def test_by_name_the_header_is_that_of_the_library_even_where_spaces_would_help(scratch, tensors, metadata):
    state = state_of(tensors)
    shard = stored_in_any_order(state, scratch / "data", metadata)
    [job] = output_shards([by_name(shard)])
    assert content(job) == save(state, metadata=metadata or None)
    assert by_name(shard).canonical
    assert not aligned(shard).canonical


def test_a_golden_header_with_spaces():
    byte_range = ByteRange(SOURCE, 4096 + 200, 1 << 16)
    [job] = output_shards([ShardContents({"a": TargetTensor("U8", (1 << 16,), (byte_range,))}, {})])
    text = b'{"a":{"dtype":"U8","shape":[65536],"data_offsets":[0,65536]}}'
    assert job.header == (192).to_bytes(8, "little") + text + b" " * (192 - len(text))
    assert job.size == 200 + (1 << 16)
    [short] = output_shards([ShardContents({"a": TargetTensor("U8", (9,), (ByteRange(SOURCE, 200, 9),))}, {})])
    text = b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}'
    assert short.header == (56).to_bytes(8, "little") + text + b" " * (56 - len(text))


def test_a_file_of_shared_data_is_nearly_all_shareable():
    tensors, offset = {}, 1000
    for number, length in enumerate([1 << 20, 1 << 18, 8, 1 << 20]):
        tensors[str(number)] = target(length, offset)
        offset += length
    [job] = output_shards([ShardContents(tensors, {"format": "pt"})])
    shared = sum(part.length for part in block_alignment.file_segments(job.header, job.ranges) if part.shareable)
    assert job.data_size - 2 * block_alignment.BLOCK < shared <= job.data_size


@pytest.mark.usefixtures("all_is_long")
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_there_and_back_the_header_is_the_same(custom, tmp_path, name):
    """The spaces that the way there has added go away again on the way back."""
    import internvl_bridge

    source = custom(name)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    header = read_header(source / SINGLE_FILE)
    there, back = (read_header(tmp_path / directory / SINGLE_FILE) for directory in ("hf", "back"))
    assert there.data_start % 8 == back.data_start % 8 == 0
    assert there.data_start % block_alignment.BLOCK == back.data_start % block_alignment.BLOCK
    assert (back.checksum, back.data_start) == (header.checksum, header.data_start)
    assert (tmp_path / "back" / SINGLE_FILE).read_bytes() == (source / SINGLE_FILE).read_bytes()


# Files and their index


def in_files_of_transformers(count: int) -> tuple[list[OutputShard], StateDictSplit]:
    """``count`` files of one tensor each: ours, and what the library under transformers makes of them."""
    keys = [f"layer.{number:02d}" for number in range(count)]
    theirs = split_torch_state_dict_into_shards(
        {key: torch.zeros(10, dtype=torch.uint8) for key in keys},
        max_shard_size=10,
        filename_pattern="model{suffix}.safetensors",
    )
    return output_shards(shards_of(*([(key, 10)] for key in keys))), theirs


@pytest.mark.parametrize("count", [2, 3, 12])
def test_shards_and_their_index_are_those_of_transformers(count):
    jobs, theirs = in_files_of_transformers(count)
    assert {job.name: list(job.keys) for job in jobs} == theirs.filename_to_tensors
    assert needs_index(jobs)
    assert index_of(jobs, {}) == {
        "metadata": theirs.metadata,
        "weight_map": theirs.tensor_to_filename,
    }


def test_a_single_file_is_that_of_transformers_and_needs_no_index():
    jobs, theirs = in_files_of_transformers(1)
    assert {job.name: list(job.keys) for job in jobs} == theirs.filename_to_tensors
    assert not theirs.is_sharded
    assert not needs_index(jobs)


def test_the_index_is_sorted_by_key_and_keeps_the_metadata_of_the_source():
    jobs = output_shards(shards_of([("z", 1), ("b", 2)], [("a", 3)]))
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = index_of(jobs, {"total_parameters": 5, "total_size": 999})
    assert index == {
        "metadata": {"total_parameters": 5, "total_size": 6},
        "weight_map": {"a": second, "b": first, "z": first},
    }
    assert json.dumps(index["weight_map"]) == json.dumps(index["weight_map"], sort_keys=True)


def test_no_tensors_still_make_a_file_that_the_library_reads(tmp_path):
    [job] = output_shards([ShardContents({}, {"format": "pt"})])
    (tmp_path / job.name).write_bytes(content(job))
    assert load_file(tmp_path / job.name) == {}
    assert open_checkpoint(tmp_path).tensors == {}


def test_five_digits_number_the_shards():
    names = [job.name for job in output_shards(shards_of(*([(str(n), 1)] for n in range(101))))]
    assert names[0] == "model-00001-of-00101.safetensors"
    assert names[-1] == "model-00101-of-00101.safetensors"
    assert all(re.fullmatch(r"model-\d{5}-of-00101\.safetensors", name) for name in names)
    assert names == sorted(names)


# Fewest ranges

FILES = [Path("a"), Path("b")]
PIECES = st.lists(st.builds(ByteRange, st.sampled_from(FILES), st.integers(0, 6), st.integers(0, 3)))


def addresses(ranges: list[ByteRange] | tuple[ByteRange, ...]) -> list[tuple[Path, int]]:
    return [(byte_range.path, byte_range.offset + i) for byte_range in ranges for i in range(byte_range.length)]


@given(PIECES)
def test_coalescing_keeps_every_byte_in_its_place(ranges):
    assert addresses(coalesced(ranges)) == addresses(ranges)


@given(PIECES)
def test_coalesced_ranges_are_as_few_as_can_be(ranges):
    bytes_in_order = addresses(ranges)
    breaks = sum((path, place + 1) != following for (path, place), following in pairwise(bytes_in_order))
    assert len(coalesced(ranges)) == (breaks + 1 if bytes_in_order else 0)


def test_neighbouring_tensors_are_copied_in_one_range():
    shard = ShardContents({"a": target(3, 10), "b": target(0, 99), "c": target(5, 13)}, {})
    [job] = output_shards([shard])
    assert job.ranges == (ByteRange(SOURCE, 10, 8),)
    assert job.keys == ("a", "b", "c")
    assert job.data_size == 8
    assert job.size == len(job.header) + 8
