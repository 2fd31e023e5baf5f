"""A directory is one checkpoint, or it is refused with words that say why."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support import shard as cut_in_shards
from support import write_safetensors

from internvl_bridge.errors import CheckpointError, shown
from internvl_bridge.storage.byte_range import ByteRange
from internvl_bridge.storage.source_shards import INDEX_FILE, SINGLE_FILE, Checkpoint, has_weights, open_checkpoint

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
ONE_BYTE = ("U8", [1], b"x")


def write_shards(directory: Path, shards: dict[str, list[str]]) -> None:
    for name, keys in shards.items():
        write_safetensors(directory / name, dict.fromkeys(keys, ONE_BYTE))


def write_index(directory: Path, weight_map: Any, **more: Any) -> None:
    (directory / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map, **more}))


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(directory)
    message = str(caught.value)
    assert str(directory) in message
    assert caught.value.remedy in message
    return message


def data_of(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {
        key: tensor.data.path.read_bytes()[tensor.data.offset :][: tensor.data.length]
        for key, tensor in checkpoint.tensors.items()
    }


@pytest.fixture
def two_shards(tmp_path: Path) -> Path:
    write_shards(tmp_path, {FIRST: ["a", "b"], SECOND: ["c"]})
    write_index(tmp_path, {"a": FIRST, "b": FIRST, "c": SECOND})
    return tmp_path


# What is opened


def test_a_single_file_is_opened_in_physical_order(tmp_path):
    tensors = {"z": ("BF16", [2], b"zzzz"), "a": ("U8", [3, 1], b"aaa"), "m": ("F32", [0], b"")}
    write_safetensors(tmp_path / SINGLE_FILE, tensors, {"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    assert [(key, t.dtype, t.shape, t.shard) for key, t in checkpoint.tensors.items()] == [
        ("z", "BF16", (2,), 0),
        ("a", "U8", (3, 1), 0),
        ("m", "F32", (0,), 0),
    ]
    assert data_of(checkpoint) == {"z": b"zzzz", "a": b"aaa", "m": b""}
    assert checkpoint.directory == tmp_path
    assert checkpoint.data_bytes == 7
    assert [shard.path for shard in checkpoint.shards] == [tmp_path / SINGLE_FILE]
    assert checkpoint.shards[0].metadata == {"format": "pt"}
    assert checkpoint.index_metadata == {}


def test_shards_are_opened_one_after_the_other_with_the_metadata_of_their_index(tmp_path):
    write_safetensors(tmp_path / SECOND, {"a": ("U8", [1], b"a")})
    write_safetensors(tmp_path / FIRST, {"c": ("U8", [1], b"c"), "b": ("U8", [2], b"bb")})
    write_index(tmp_path, {"a": SECOND, "b": FIRST, "c": FIRST}, metadata={"total_size": 4, "by": ["me"]})
    checkpoint = open_checkpoint(tmp_path)
    assert [(key, tensor.shard) for key, tensor in checkpoint.tensors.items()] == [
        ("c", 0),
        ("b", 0),
        ("a", 1),
    ]
    assert data_of(checkpoint) == {"c": b"c", "b": b"bb", "a": b"a"}
    assert [shard.path.name for shard in checkpoint.shards] == [FIRST, SECOND]
    assert checkpoint.index_metadata == {"total_size": 4, "by": ["me"]}


def test_an_index_needs_no_metadata(tmp_path):
    write_shards(tmp_path, {SINGLE_FILE: ["a"]})
    (tmp_path / INDEX_FILE).write_text(json.dumps({"weight_map": {"a": SINGLE_FILE}}))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.index_metadata == {}
    assert list(checkpoint.tensors) == ["a"]


def test_shards_may_have_names_of_their_own(tmp_path):
    write_shards(tmp_path, {"vision.safetensors": ["a"], ".\u00e9 [x].safetensors": ["b"]})
    write_index(tmp_path, {"a": "vision.safetensors", "b": ".\u00e9 [x].safetensors"})
    assert open_checkpoint(tmp_path).tensors.keys() == {"a", "b"}


def test_a_stored_checkpoint_has_the_same_tensors_in_shards(custom):
    directory = custom("qwen2-300m")
    whole = data_of(open_checkpoint(directory))
    cut_in_shards(directory, lambda key: len(key) % 3)
    sharded = open_checkpoint(directory)
    assert len(sharded.shards) == 3
    assert data_of(sharded) == whole


def test_links_into_a_hub_cache_are_followed(two_shards, tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, name in enumerate((FIRST, SECOND, INDEX_FILE)):
        (two_shards / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    linked = tmp_path / "link"
    linked.symlink_to(snapshot)
    assert data_of(open_checkpoint(linked)) == {"a": b"x", "b": b"x", "c": b"x"}
    assert open_checkpoint(linked).tensors["c"].data.path == linked / SECOND


def test_other_files_and_directories_do_not_disturb(two_shards):
    (two_shards / "config.json").write_text("{}")
    (two_shards / "old.safetensors").mkdir()
    (two_shards / "pytorch_model.bin").write_bytes(b"pickle")
    (two_shards / "original").mkdir()
    write_shards(two_shards / "original", {SINGLE_FILE: ["a"]})
    assert list(open_checkpoint(two_shards).tensors) == ["a", "b", "c"]


def test_a_piece_says_where_the_data_is(tmp_path):
    write_safetensors(tmp_path / SINGLE_FILE, {"a": ("U8", [3], b"aaa"), "b": ("U8", [2], b"bb")})
    size = (tmp_path / SINGLE_FILE).stat().st_size
    assert open_checkpoint(tmp_path).tensors["b"].data == ByteRange(tmp_path / SINGLE_FILE, size - 2, 2)


# Directories without a checkpoint


def test_a_missing_directory_is_named(tmp_path):
    assert "is not a directory" in refusal(tmp_path / "nowhere")


def test_a_file_is_no_directory(tmp_path):
    write_shards(tmp_path, {SINGLE_FILE: ["a"]})
    assert "is not a directory" in refusal(tmp_path / SINGLE_FILE)


def test_an_empty_directory_is_refused_with_the_names_that_were_expected(tmp_path):
    assert f"holds no {SINGLE_FILE} and no {INDEX_FILE}" in refusal(tmp_path)


def test_of_many_pickled_files_a_few_are_named(tmp_path):
    for number in range(5):
        (tmp_path / f"weights-{number}.bin").touch()
    assert "weights-0.bin, weights-1.bin, weights-2.bin and 2 more, and nothing shows" in refusal(tmp_path)


def test_complete_shards_need_no_index(two_shards):
    expected = data_of(open_checkpoint(two_shards))
    (two_shards / INDEX_FILE).unlink()
    opened = open_checkpoint(two_shards)
    assert data_of(opened) == expected
    assert [remark for remark in opened.remarks if f"There is no {INDEX_FILE}" in remark]


def test_some_shards_without_their_index_are_refused(two_shards):
    (two_shards / INDEX_FILE).unlink()
    (two_shards / FIRST).rename(two_shards / "model-00001-of-00003.safetensors")
    message = refusal(two_shards)
    assert f"holds model-00001-of-00003.safetensors, {SECOND}, but neither {SINGLE_FILE} nor {INDEX_FILE}" in message
    assert "restore the index" in message


def test_a_single_file_of_another_name_is_to_be_renamed(tmp_path):
    write_shards(tmp_path, {"weights.safetensors": ["a"]})
    message = refusal(tmp_path)
    assert "holds weights.safetensors, but neither" in message
    assert f"Rename a single file to {SINGLE_FILE}" in message


def test_a_fifo_in_place_of_the_file_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / SINGLE_FILE)
    assert f"holds no {SINGLE_FILE}" in refusal(tmp_path)


def test_a_damaged_shard_is_named(two_shards):
    os.truncate(two_shards / SECOND, 20)
    assert f"{two_shards / SECOND} is not a valid safetensors file" in refusal(two_shards)


# Files that contradict each other


def test_a_file_beside_the_single_file_is_stale(tmp_path):
    write_shards(tmp_path, {SINGLE_FILE: ["a"], FIRST: ["a"]})
    message = refusal(tmp_path)
    assert f"holds {FIRST}, which does not belong to the checkpoint of {SINGLE_FILE}" in message
    assert "Move the stale files away" in message


def test_a_single_file_beside_an_index_is_stale(two_shards):
    write_shards(two_shards, {SINGLE_FILE: ["a", "b", "c"]})
    message = refusal(two_shards)
    assert f"holds {SINGLE_FILE}, which does not belong to the checkpoint of {INDEX_FILE}" in message
    assert "Move the stale files away" in message


def test_files_without_a_tensor_of_the_checkpoint_are_left_alone(two_shards):
    write_shards(two_shards, {f"model-0000{number}-of-00005.safetensors": [f"d{number}"] for number in range(1, 6)})
    opened = open_checkpoint(two_shards)
    assert opened.tensors.keys() == {"a", "b", "c"}
    listed = ", ".join(f"model-0000{number}-of-00005.safetensors" for number in range(1, 4))
    assert [remark for remark in opened.remarks if f"were left alone: {listed} and 2 more" in remark]


def test_what_macos_leaves_beside_files_is_nobodys(two_shards):
    for name in (FIRST, SECOND, INDEX_FILE):
        (two_shards / f"._{name}").write_bytes(b"\0\5\x16\7")
    assert open_checkpoint(two_shards).remarks == ()


@pytest.mark.parametrize("missing", [FIRST, SECOND])
def test_a_shard_that_the_index_names_must_be_there(two_shards, missing):
    (two_shards / missing).unlink()
    message = refusal(two_shards)
    assert f"{two_shards / INDEX_FILE} names {missing}, which is not there" in message
    assert "incomplete" in message


def test_a_link_to_a_shard_that_was_not_downloaded_is_missing(two_shards):
    (two_shards / SECOND).unlink()
    (two_shards / SECOND).symlink_to("../blobs/0123")
    assert f"{SECOND} is a link to ../blobs/0123, and nothing is there" in refusal(two_shards)
    (two_shards / INDEX_FILE).unlink()
    (two_shards / FIRST).unlink()
    assert f"{SECOND} is a link to ../blobs/0123, and nothing is there" in refusal(two_shards)


@pytest.mark.parametrize("kind", ["directory", "fifo", "device"])
def test_a_shard_that_is_no_file_is_not_called_missing(two_shards, kind):
    place = two_shards / SECOND
    place.unlink()
    if kind == "directory":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    else:
        place.symlink_to("/dev/zero")
    assert f"names {SECOND}, which is there, but is not a file" in refusal(two_shards)


def test_of_a_tensor_in_two_shards_the_index_names_the_one_that_counts(two_shards):
    write_shards(two_shards, {SECOND: ["b", "c"]})
    opened = open_checkpoint(two_shards)
    assert opened.tensors["b"].data.path == two_shards / FIRST
    assert [remark for remark in opened.remarks if f"is not used: b in {SECOND}" in remark]


def test_of_equal_tensors_in_two_shards_without_an_index_one_is_taken(two_shards):
    (two_shards / INDEX_FILE).unlink()
    write_shards(two_shards, {FIRST: ["a"], SECOND: ["a"]})
    opened = open_checkpoint(two_shards)
    assert opened.tensors["a"].data.path == two_shards / FIRST
    assert [remark for remark in opened.remarks if f"equals it bit for bit is not used: a in {SECOND}" in remark]


@pytest.mark.parametrize("other", [bytes(4), bytes(8)])
def test_unequal_ones_are_refused_with_both(two_shards, other):
    (two_shards / INDEX_FILE).unlink()
    write_safetensors(two_shards / FIRST, {"a": ("U8", [4], b"abcd")})
    write_safetensors(two_shards / SECOND, {"a": ("U8", [len(other)], other)})
    message = refusal(two_shards)
    assert f"a is both in {two_shards / FIRST} and in {two_shards / SECOND}, with different numbers" in message


STALE = [
    ({"a": FIRST, "b": FIRST, "c": SECOND, "d": SECOND}, f"places d in {SECOND}, but it is in no file"),
    ({"a": FIRST, "c": SECOND}, f"places b in no file, but it is in {FIRST}"),
    ({"a": FIRST, "b": SECOND, "c": SECOND}, f"places b in {SECOND}, but it is in {FIRST}"),
    ({"a": SECOND, "b": FIRST, "c": FIRST}, f"places a in {SECOND}, but it is in {FIRST}"),
    ({"a": FIRST, "b": "model-00003-of-00003.safetensors", "c": SECOND}, "names model-00003-of-00003.safetensors"),
]


@pytest.mark.parametrize("weight_map", [weight_map for weight_map, _ in STALE])
def test_an_index_that_does_not_fit_complete_shards_is_stale(two_shards, weight_map):
    expected = data_of(open_checkpoint(two_shards))
    write_index(two_shards, weight_map)
    opened = open_checkpoint(two_shards)
    assert data_of(opened) == expected
    assert [remark for remark in opened.remarks if f"{INDEX_FILE} is that of another save" in remark]


@pytest.mark.parametrize(("weight_map", "words"), STALE)
def test_other_files_must_be_as_their_index_says(two_shards, weight_map, words):
    names = {FIRST: "first.safetensors", SECOND: "second.safetensors"}
    for old, new in names.items():
        (two_shards / old).rename(two_shards / new)
        words = words.replace(old, new)
    write_index(two_shards, {key: names.get(name, name) for key, name in weight_map.items()})
    message = refusal(two_shards)
    assert f"{two_shards / INDEX_FILE} {words}" in message


# Indices that are not to be trusted


@pytest.mark.parametrize(
    "name",
    [
        "../outside.safetensors",
        "./inside.safetensors",
        "sub/inside.safetensors",
        "sub/../inside.safetensors",
        "/etc/outside.safetensors",
        "inside.safetensors/",
        "inside.safetensors/.",
        "pytorch_model.bin",
        "inside.safetensors.bin",
        "INSIDE.SAFETENSORS",
        "safetensors",
        "..",
        ".",
        "",
        None,
        1,
        True,
        ["inside.safetensors"],
        {"inside.safetensors": 1},
    ],
)
def test_tensors_lie_only_in_safetensors_files_beside_the_index(tmp_path, name):
    directory = tmp_path / "checkpoint"
    (directory / "sub").mkdir(parents=True)
    for place in (directory, directory / "sub", tmp_path):
        write_shards(place, {"inside.safetensors": ["b"], "outside.safetensors": ["b"]})
    (directory / "outside.safetensors").unlink()
    write_index(directory, {"a": "inside.safetensors", "b": name})
    message = refusal(directory)
    assert f"{directory / INDEX_FILE} is not a valid index" in message
    assert f"places tensors in {name!r}, which is not a .safetensors file beside it" in message


def test_an_index_does_not_reach_outside_by_an_absolute_path(two_shards, tmp_path):
    name = str(tmp_path / FIRST)
    write_index(two_shards, {"a": name, "b": name, "c": SECOND})
    assert f"places tensors in {shown(name)}" in refusal(two_shards)


def test_a_name_that_no_file_can_have_is_refused(two_shards):
    name = "nul\0.safetensors"
    write_index(two_shards, {"a": name, "b": FIRST, "c": SECOND})
    assert f"places tensors in {name!r}, which is not a .safetensors file beside it" in refusal(two_shards)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"weight_map": {"a": "x.safetensors"},}', "not JSON"),
        (b"\xff\xfe{}", "not valid Unicode"),
        (b'{"weight_map": {"\\ud800": "x.safetensors"}}', "not valid Unicode"),
        (b"[]", "a JSON object was expected, not list"),
        (b"null", "a JSON object was expected, not NoneType"),
        (b'{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "the key 'a' appears twice"),
        (b'{"weight_map": {}, "weight_map": {}}', "the key 'weight_map' appears twice"),
        (b'{"metadata": {"total_size": NaN}, "weight_map": {}}', "NaN is not a number"),
        (b'{"metadata": ' + b"[" * 100_000, "nested too deeply"),
        (b"{}", "'weight_map'"),
        (b'{"weight_map": null}', "'weight_map'"),
        (b'{"weight_map": {}}', "'weight_map' object that is not empty"),
        (b'{"weight_map": ["x.safetensors"]}', "'weight_map'"),
        (b'{"weight_map": "x.safetensors"}', "'weight_map'"),
        (b'{"metadata": [], "weight_map": {"a": "x.safetensors"}}', "'metadata'"),
        (b'{"metadata": 5, "weight_map": {"a": "x.safetensors"}}', "'metadata'"),
    ],
    ids=lambda value: ascii(value[:60]),
)
def test_a_malformed_index_is_refused(tmp_path, text, words):
    write_shards(tmp_path, {"x.safetensors": ["a"]})
    (tmp_path / INDEX_FILE).write_bytes(text)
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / INDEX_FILE} is not a valid index: ")
    assert words in message


def test_an_index_of_more_than_100_mb_is_not_read(two_shards):
    os.truncate(two_shards / INDEX_FILE, 100_000_001)
    message = refusal(two_shards)
    assert f"{two_shards / INDEX_FILE} is not a valid index: it has more than 100000000 bytes" in message


def test_a_malformed_index_is_not_passed_over_for_a_single_file(tmp_path):
    write_shards(tmp_path, {SINGLE_FILE: ["a"]})
    (tmp_path / INDEX_FILE).write_text("{")
    assert "is not a valid index" in refusal(tmp_path)


# Whether there is anything to open


@pytest.mark.parametrize(
    ("name", "found"), [(SINGLE_FILE, True), (INDEX_FILE, True), ("pytorch_model.bin", False), (FIRST, False)]
)
def test_a_directory_has_weights_if_it_has_a_name_to_start_from(tmp_path, name, found):
    assert not has_weights(tmp_path)
    (tmp_path / name).write_bytes(b"damaged")
    assert has_weights(tmp_path) is found
