"""Chunks that torch.distributed.checkpoint wrote are located bit for bit, and make up whole tensors."""

import itertools
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed._shard.sharded_tensor.metadata import TensorProperties as OldTensorProperties
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from internvl_bridge.checkpoint.byte_ranges import specs_of, target_tensors
from internvl_bridge.checkpoint.dumps import distributed, distributed_metadata
from internvl_bridge.checkpoint.dumps.boxes import Box, runs_in, tiled
from internvl_bridge.checkpoint.dumps.detection import has_distributed_weights, has_pickled_weights
from internvl_bridge.checkpoint.dumps.distributed import open_distributed
from internvl_bridge.checkpoint.opened_weights import OpenedWeights
from internvl_bridge.errors import CheckpointError
from internvl_bridge.mapping.plan import invert
from internvl_bridge.storage.byte_range import ByteRange


def anything(_: Collection[str]) -> bool:
    return True


def bits(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist()) if tensor.numel() else b""


def read(byte_range: ByteRange) -> bytes:
    return byte_range.path.read_bytes()[byte_range.offset :][: byte_range.length]


def whole_tensors(dump: OpenedWeights) -> dict[str, bytes]:
    """The bytes of every whole tensor, as the byte engine would gather them."""
    if dump.assembly is None:
        return {key: read(tensor.data) for key, tensor in dump.checkpoint.tensors.items()}
    assert dict(dump.assembly.sources) == specs_of(dump.checkpoint)
    invert(dump.assembly)  # raises unless every stored element is used once
    return {key: b"".join(map(read, target.ranges)) for key, target in target_tensors(dump.assembly, dump.checkpoint)}


def save(directory: Path, state: dict[str, Any]) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")  # torch 2.7's own use of it
        dcp.save(state, checkpoint_id=directory, no_dist=True)
    return directory


def edit(directory: Path, change: Callable[[Any], object]) -> Path:
    """Let ``change`` modify the metadata in place."""
    path = directory / ".metadata"
    metadata = pickle.loads(path.read_bytes())  # noqa: S301 (a test wrote it)
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))
    return directory


def refusal(directory: Path, is_model: Callable[[Collection[str]], bool] = anything) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_distributed(directory, is_model)
    message = str(caught.value)
    assert str(directory) in message
    assert caught.value.remedy.endswith(".")
    assert "\n" not in message
    return message


# Whole tensors


def example() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "model.z": torch.randn(3, 4, generator=generator).to(torch.bfloat16),
        "model.scalar": torch.tensor(2.5, dtype=torch.float64),
        "model.empty": torch.empty(0, 4),
        "model.view": torch.randn(6, 5, generator=generator)[2:4],
        "lm_head.a": torch.arange(9),
    }


def test_the_bytes_of_whole_tensors_are_found(tmp_path):
    tensors = example()
    dump = open_distributed(save(tmp_path, dict(tensors)), anything)
    assert dump.assembly is None
    assert dump.left_out == ()
    assert whole_tensors(dump) == {key: bits(tensor) for key, tensor in tensors.items()}
    stored = dump.checkpoint.tensors
    assert {key: tensor.shape for key, tensor in stored.items()} == {k: tuple(t.shape) for k, t in tensors.items()}
    assert {tensor.dtype for tensor in stored.values()} == {"BF16", "F64", "F32", "I64"}
    offsets = [tensor.data.offset for tensor in stored.values()]
    assert offsets == sorted(offsets)
    assert dump.checkpoint.directory == tmp_path
    assert [shard.path.name for shard in dump.checkpoint.shards] == ["__0_0.distcp"]
    assert has_distributed_weights(tmp_path)
    assert not has_pickled_weights(tmp_path)


def test_no_tensor_data_is_read(tmp_path, monkeypatch):
    save(tmp_path, {"large": torch.zeros(8 << 20, dtype=torch.uint8), "small": torch.ones(3)})
    count = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: count.append(n) or pread(fd, n, at))
    dump = open_distributed(tmp_path, anything)
    assert sum(count) < 40_000
    assert dump.checkpoint.tensors["large"].data.length == 8 << 20


def test_importing_and_opening_warns_of_nothing(tmp_path):
    save(tmp_path, example())
    code = """if True:
        import sys, pathlib
        from internvl_bridge.checkpoint.dumps.distributed import open_distributed
        print(len(open_distributed(pathlib.Path(sys.argv[1]), bool).checkpoint.tensors))
    """
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, tmp_path], capture_output=True, text=True, check=True
    )
    assert (run.stdout, run.stderr) == ("5\n", "")


# Sharded tensors: two processes write, as a trainer's would

SHAPES = {
    "mlp1.rows": (8, 6),
    "mlp1.uneven": (5, 3),
    "mlp1.empty_shard": (1, 4),
    "mlp1.columns": (4, 6),
    "mlp1.uneven_columns": (3, 5),
    "mlp1.middle": (2, 5, 3),
    "mlp1.replicated": (3, 3),
    "mlp1.vector": (7,),
}
PLACEMENTS = {"mlp1.columns": 1, "mlp1.uneven_columns": 1, "mlp1.middle": 1, "mlp1.replicated": None}

WRITER = """if True:
    import os, sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    rank, store, target, shapes, placements = int(sys.argv[1]), *sys.argv[2:4], *map(eval, sys.argv[4:6])
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    state = {}
    for number, (key, shape) in enumerate(shapes.items()):
        tensor = torch.randn(shape, generator=torch.Generator().manual_seed(number)).to(torch.bfloat16)
        dimension = placements.get(key, 0)
        state[key] = distribute_tensor(tensor, mesh, [Replicate() if dimension is None else Shard(dimension)])
    state["mlp1.plain"] = torch.arange(4.0)
    dcp.save({"model": state, "optim": {"lr": 0.1, "exp_avg": state["mlp1.rows"]}, "step": 3}, checkpoint_id=target)
    os._exit(0)  # gloo of torch 2.7 may hang while it is being taken down
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ranks")
    arguments = [directory / "store", directory / "dump", repr(SHAPES), repr(PLACEMENTS)]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(rank), *arguments]) for rank in range(2)]
    try:
        assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
    return directory / "dump"


def test_the_bytes_of_sharded_tensors_are_found(two_ranks):
    dump = open_distributed(two_ranks, lambda keys: "mlp1.rows" in keys)
    expected = {
        key: bits(torch.randn(shape, generator=torch.Generator().manual_seed(number)).to(torch.bfloat16))
        for number, (key, shape) in enumerate(SHAPES.items())
    }
    assert whole_tensors(dump) == {**expected, "mlp1.plain": bits(torch.arange(4.0))}
    assert dump.assembly is not None
    assert {key: spec.shape for key, spec in dump.assembly.targets.items()} == {**SHAPES, "mlp1.plain": (4,)}
    assert dump.left_out == ("optim", "step")
    assert [shard.path.name for shard in dump.checkpoint.shards] == ["__0_0.distcp", "__1_0.distcp"]
    places = [(tensor.shard, tensor.data.offset) for tensor in dump.checkpoint.tensors.values()]
    assert places == sorted(places)


def test_chunks_are_named_by_their_offsets_and_joined_where_they_can_be(two_ranks):
    dump = open_distributed(two_ranks, lambda keys: "mlp1.rows" in keys)
    chunks = dump.checkpoint.tensors
    assert (chunks["mlp1.rows[0,0]"].shape, chunks["mlp1.rows[4,0]"].shape) == ((4, 6), (4, 6))
    assert (chunks["mlp1.uneven[0,0]"].shape, chunks["mlp1.uneven[3,0]"].shape) == ((3, 3), (2, 3))
    assert (chunks["mlp1.uneven_columns[0,0]"].shape, chunks["mlp1.uneven_columns[0,3]"].shape) == ((3, 3), (3, 2))
    assert {key for key in chunks if "[" not in key} == {
        "mlp1.empty_shard",
        "mlp1.replicated",
        "mlp1.plain",
    }
    assert dump.assembly is not None
    counts = {key: len(recipe.runs) for key, recipe in dump.assembly.recipes.items()}
    assert (counts["mlp1.rows"], counts["mlp1.columns"], counts["mlp1.middle"], counts["mlp1.plain"]) == (2, 8, 4, 1)


def test_torch_reads_the_same(two_ranks):
    """What torch's own reader loads from the directory is what the located ranges hold."""
    state = {"model": {key: torch.zeros(shape, dtype=torch.bfloat16) for key, shape in SHAPES.items()}}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        dcp.load(state, checkpoint_id=two_ranks, no_dist=True)
    found = whole_tensors(open_distributed(two_ranks, lambda keys: "mlp1.rows" in keys))
    assert {key: bits(tensor) for key, tensor in state["model"].items()} == {key: found[key] for key in SHAPES}


# Boxes


@given(st.data())
def test_boxes_tile_a_tensor_as_indexing_does(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 5), max_size=4)))
    cuts = [sorted({0, size, *data.draw(st.lists(st.integers(1, size), max_size=2))}) for size in shape]
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    boxes, stored = {}, {}
    spans = list(itertools.product(*(itertools.pairwise(cut) for cut in cuts)))
    for number, span in enumerate(data.draw(st.permutations(spans))):
        boxes[str(number)] = Box(tuple(a for a, _ in span), tuple(b - a for a, b in span))
        stored[str(number)] = whole[tuple(slice(a, b) for a, b in span)].reshape(-1)
    runs = tiled(shape, boxes, AssertionError)
    assert torch.equal(torch.cat([stored[run.key][run.start : run.stop] for run in runs]), whole.reshape(-1))
    assert len(runs) <= sum(runs_in(box, shape) for box in boxes.values())
    assert len(boxes) > 1 or runs_in(boxes["0"], shape) == 1


@pytest.mark.parametrize(
    ("boxes", "reason"),
    [
        ({"a": Box((0, 0), (2, 3))}, "element 3 is stored nowhere"),
        ({"a": Box((0, 0), (4, 3)), "b": Box((0, 2), (4, 2))}, "element 2 is stored twice"),
        ({"a": Box((0, 0), (4, 4)), "b": Box((3, 3), (1, 1))}, "element 15 is stored twice"),
        ({"a": Box((0, 0), (3, 4))}, "element 12 is stored nowhere"),
        ({"a": Box((1, 0), (3, 4))}, "element 0 is stored nowhere"),
        ({}, "element 0 is stored nowhere"),
    ],
)
def test_boxes_that_do_not_tile_are_refused(boxes, reason):
    with pytest.raises(ValueError, match=reason):
        tiled((4, 4), boxes, ValueError)


def test_a_tensor_without_elements_is_whole_however_it_was_cut(tmp_path):
    def cut(metadata: Metadata) -> None:
        empty = torch.Size([0, 0])
        metadata.state_dict_metadata["x"].size = torch.Size([0, 6])
        metadata.state_dict_metadata["x"].chunks = [
            ChunkStorageMetadata(empty, torch.Size([0, columns])) for columns in (2, 4)
        ]

    dump = open_distributed(edit(save(tmp_path, {"x": torch.empty(0, 2)}), cut), anything)
    assert dump.assembly is None
    assert [(tensor.shape, tensor.data.length) for tensor in dump.checkpoint.tensors.values()] == [((0, 6), 0)]


# Prefixes


def model(keys: Collection[str]) -> bool:
    return bool(keys) and all(key.startswith(("language_model.", "vision_model.", "mlp1.")) for key in keys)


@pytest.mark.parametrize("prefix", ["", "model.", "state_dict.", "app.model.", "module.model."])
def test_the_prefix_of_a_trainer_is_taken_away(tmp_path, prefix):
    keys = ["language_model.model.layers.0.w", "vision_model.w", "mlp1.0.weight"]
    optimizer = {f"optim.state.{prefix}{key}.exp_avg": torch.zeros(1) for key in keys} if prefix else {}
    state = {f"{prefix}{key}": torch.full((2,), float(n)) for n, key in enumerate(keys)}
    counters = {"step": 3, "optim.lr": 0.1, **({f"{prefix}_extra_state": "x"} if prefix else {})}
    dump = open_distributed(save(tmp_path, state | optimizer | counters), model)
    assert whole_tensors(dump) == {key: bits(torch.full((2,), float(n))) for n, key in enumerate(keys)}
    assert dump.left_out == tuple(sorted({"optim", "step"} | ({f"{prefix}_extra_state"} if prefix else set())))


def test_parts_behind_two_prefixes_are_both_named(tmp_path):
    state = {"a.mlp1.w": torch.ones(1), "model.language_model.w": torch.zeros(1), "optim.mlp1.w.exp_avg": torch.ones(1)}
    save(tmp_path, state)
    with pytest.raises(CheckpointError, match=r"holds parts of a model under several names: a, model\."):
        open_distributed(tmp_path, model)
    assert [*open_distributed(tmp_path, model, "model").checkpoint.tensors] == ["language_model.w"]


def test_a_model_and_an_average_of_it_are_both_named(tmp_path):
    keys = ["mlp1.a", "mlp1.b", "vision_model.w"]
    state = {name: {key: torch.ones(1) for key in keys} for name in ("model", "ema")}
    save(tmp_path, {**state, "optim": {"state": {"mlp1.a.exp_avg": torch.ones(1)}}})
    with pytest.raises(CheckpointError, match=r"2 models with the same keys: model, ema\..*--state-dict model"):
        open_distributed(tmp_path, model)
    for name, others in {"model": ("ema", "optim"), "ema": ("model", "optim")}.items():
        chosen = open_distributed(tmp_path, model, name)
        assert chosen.checkpoint.tensors.keys() == {*keys}
        assert (chosen.state_dict, chosen.left_out) == (name, others)
    with pytest.raises(CheckpointError, match=r"does not hold a state dict 'actor'. It holds model, "):
        open_distributed(tmp_path, model, "actor")


def test_without_a_prefix_that_fits_all_tensors_are_taken(tmp_path):
    state = {"model._orig_mod.mlp1.w": torch.ones(1), "optim.exp_avg": torch.ones(1), "step": 1}
    dump = open_distributed(save(tmp_path, state), lambda _: False)
    assert sorted(dump.checkpoint.tensors) == ["model._orig_mod.mlp1.w", "optim.exp_avg"]
    assert dump.left_out == ("step",)


def test_what_is_left_out_may_be_odd(tmp_path):
    state = {
        "model.mlp1.w": torch.ones(1),
        "optim.c": torch.ones(2, dtype=torch.complex128),
        "optim.t": torch.ones(2, 2),
    }
    save(tmp_path, state)

    def spoil(metadata: Metadata) -> None:
        metadata.state_dict_metadata["optim.t"].chunks.clear()

    assert open_distributed(edit(tmp_path, spoil), model).left_out == ("optim",)
    assert "optim.t has no chunk" in refusal(tmp_path)


# A .metadata runs nothing


class Evil:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> tuple[Any, Any]:
        return self._reduced


@pytest.mark.parametrize("function", [os.mkdir, eval, torch.load, torch.hub.load, pickle.loads])
def test_a_metadata_that_would_run_code_is_refused_and_not_run(tmp_path, function):
    victim = tmp_path / "victim"
    arguments = {
        eval: (f"__import__('os').mkdir({str(victim)!r})",),
        pickle.loads: (pickle.dumps(Evil(os.mkdir, str(victim))),),
    }.get(function, (str(victim),))
    save(tmp_path, example())
    edit(tmp_path, lambda metadata: setattr(metadata, "planner_data", Evil(function, *arguments)))
    message = refusal(tmp_path)
    assert not victim.exists()
    assert f"it needs {function.__module__}.{function.__qualname__}." in message
    assert "dcp_to_torch_save" in message
    pickle.loads(pickle.dumps(Evil(os.mkdir, str(victim))))  # and it would have  # noqa: S301
    assert victim.exists()


def raw_metadata(directory: Path, body: bytes) -> Path:
    (directory / ".metadata").write_bytes(b"\x80\x04" + body + b".")
    return directory


@pytest.mark.parametrize(
    "name", [b"torch.distributed.checkpoint.metadata\nMetadata.__init__", b"torch\nload", b"torch\nhub", b"os\nsystem"]
)
def test_a_metadata_gets_only_the_names_of_the_format(tmp_path, name):
    module, _, attribute = name.decode().partition("\n")
    assert f"it needs {module}.{attribute}." in refusal(raw_metadata(tmp_path, b"c" + name + b"\n"))


def test_a_metadata_cannot_change_the_classes_of_torch(tmp_path):
    """A pickle can set attributes of a class that it is given: it gets none of torch's own."""
    size = b"ctorch\nSize\n"
    for module, name in [("metadata", "Metadata"), ("metadata", "TensorProperties"), ("filesystem", "_StorageInfo")]:
        target = f"ctorch.distributed.checkpoint.{module}\n{name}\n".encode()
        raw_metadata(tmp_path, target + b"(N}U\x08__init__" + size + b"s" + b"tb")
        refusal(tmp_path)
    assert torch.Size not in (Metadata.__init__, TensorProperties.__init__, _StorageInfo.__init__)
    for name in (b"builtins\ngetattr", b"torch.serialization\n_get_layout"):
        raw_metadata(tmp_path, b"c" + name + b"\n(U\x01aU\x01btR")  # is called, and gives nothing
        assert "does not list entries" in refusal(tmp_path)
    assert open_distributed(save(tmp_path / "fine", example()), anything).assembly is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x80",
        b"version https://git-lfs.github.com/spec/v1\n",
        pickle.dumps({"model": 1}),
        pickle.dumps(Metadata({})),
        pickle.dumps(Metadata({"a": 1}, storage_data={})),
        pickle.dumps(Metadata({1: TensorStorageMetadata(TensorProperties(), torch.Size([1]), [])}, storage_data={})),
        b"(" * 5000,
        b"\x80\x04" + b"\x85" * 10 + b".",
    ],
)
def test_other_bytes_are_refused(tmp_path, raw):
    (tmp_path / ".metadata").write_bytes(raw)
    refusal(tmp_path)


def test_a_few_bytes_do_not_take_gigabytes(tmp_path):
    """For the interpreter in C a memo with this number has 64 GB."""
    assert "does not list entries" in refusal(raw_metadata(tmp_path, b"]r\xff\xff\xff\xff"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, bytes]:
    directory = save(tmp_path_factory.mktemp("small"), {"a": torch.ones(2, 3), "b": torch.zeros(1)})
    return directory, (directory / ".metadata").read_bytes(), (directory / "__0_0.distcp").read_bytes()


@given(st.data())
def test_damaged_metadata_is_refused_or_read(small, data):
    directory, raw, chunks = small[0], bytearray(small[1]), small[2]
    (directory / "__0_0.distcp").write_bytes(chunks)
    positions = st.integers(0, len(raw) - 1)
    for position, change in data.draw(st.lists(st.tuples(positions, st.integers(1, 255)), min_size=1, max_size=3)):
        raw[position] ^= change
    (directory / ".metadata").write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), positions))])
    try:
        dump = open_distributed(directory, anything)
    except CheckpointError:
        return
    for tensor in dump.checkpoint.tensors.values():
        assert tensor.data.offset + tensor.data.length <= tensor.data.path.stat().st_size


@given(st.data())
def test_damaged_chunks_are_refused_or_found_within_the_file(small, data):
    directory, path, raw = small[0], small[0] / "__0_0.distcp", bytearray(small[2])
    (directory / ".metadata").write_bytes(small[1])
    positions = st.integers(0, len(raw) - 1)
    for position, change in data.draw(st.lists(st.tuples(positions, st.integers(1, 255)), max_size=3)):
        raw[position] ^= change
    length = data.draw(st.one_of(st.just(len(raw)), positions))
    path.write_bytes(raw[:length])
    try:
        dump = open_distributed(directory, anything)
    except CheckpointError:
        return
    for tensor in dump.checkpoint.tensors.values():
        assert tensor.data.offset + tensor.data.length <= length


def test_the_metadata_of_other_versions_is_read(tmp_path, monkeypatch):
    """Python 3.11.0 pickles members of enums by getattr, torch before 2.3 has TensorProperties elsewhere."""
    save(tmp_path, example())

    def older(metadata: Metadata) -> None:
        for entry in metadata.state_dict_metadata.values():
            entry.properties = OldTensorProperties(dtype=entry.properties.dtype)

    assert len(open_distributed(edit(tmp_path, older), anything).checkpoint.tensors) == 5
    by_name = lambda member, _: (getattr, (type(member), member.name))  # noqa: E731
    monkeypatch.setattr(_MEM_FORMAT_ENCODING, "__reduce_ex__", by_name)
    save(tmp_path / "enum", example())
    assert b"getattr" in (tmp_path / "enum" / ".metadata").read_bytes()
    assert len(open_distributed(tmp_path / "enum", anything).checkpoint.tensors) == 5


# A .metadata that contradicts its files, or itself


def chunk_of(metadata: Metadata, key: str) -> ChunkStorageMetadata:
    return metadata.state_dict_metadata[key].chunks[0]


def info_of(metadata: Metadata, key: str) -> Any:
    [index] = [index for index in metadata.storage_data if index.fqn == key]
    return metadata.storage_data[index]


CONTRADICTIONS: dict[str, tuple[Callable[[Any], object], str]] = {
    "hole": (lambda m: setattr(chunk_of(m, "x"), "sizes", torch.Size([2, 2])), "of x do not make up the tensor"),
    "outside": (lambda m: setattr(chunk_of(m, "x"), "sizes", torch.Size([3, 4])), "is not within the tensor"),
    "flat": (lambda m: setattr(chunk_of(m, "x"), "sizes", torch.Size([8])), "is not within the tensor"),
    "negative": (lambda m: setattr(chunk_of(m, "x"), "sizes", torch.Size([-2, 4])), "is not within the tensor"),
    "twice": (lambda m: m.state_dict_metadata["x"].chunks.append(chunk_of(m, "x")), "x is stored twice"),
    "no chunk": (lambda m: m.state_dict_metadata["x"].chunks.clear(), "x has no chunk"),
    "shape": (
        lambda m: (
            setattr(m.state_dict_metadata["x"], "size", torch.Size([4, 2])),
            setattr(chunk_of(m, "x"), "sizes", torch.Size([4, 2])),
        ),
        "holds BF16 [2, 4] for x, and .metadata says BF16 [4, 2]",
    ),
    "dtype": (lambda m: setattr(m.state_dict_metadata["x"].properties, "dtype", torch.float16), "says F16 [2, 4]"),
    "dtype unknown": (
        lambda m: setattr(m.state_dict_metadata["x"].properties, "dtype", torch.complex128),
        "x in {path}/.metadata has the dtype torch.complex128",
    ),
    "no dtype": (lambda m: setattr(m.state_dict_metadata["x"].properties, "dtype", 3), "x is not described"),
    "no place": (lambda m: m.storage_data.pop(MetadataIndex("x", [0, 0])), "where the chunk [0, 0] of x is stored"),
    "no number": (lambda m: setattr(info_of(m, "x"), "offset", "0"), "where the chunk [0, 0] of x is stored"),
    "before": (lambda m: setattr(info_of(m, "x"), "offset", -1), "where the chunk [0, 0] of x is stored"),
    "odd chunk": (lambda m: setattr(chunk_of(m, "x"), "offsets", None), "a chunk of x is not described"),
    "parent": (lambda m: setattr(info_of(m, "x"), "relative_path", "../__0_0.distcp"), "not a file in its directory"),
    "root": (lambda m: setattr(info_of(m, "x"), "relative_path", "/etc/passwd"), "not a file in its directory"),
    "nul": (lambda m: setattr(info_of(m, "x"), "relative_path", "a\0"), "not a file in its directory"),
    "nameless": (lambda m: setattr(info_of(m, "x"), "relative_path", ""), "not a file in its directory"),
    "missing": (lambda m: setattr(info_of(m, "x"), "relative_path", "__1_0.distcp"), "__1_0.distcp, which is not"),
    "beyond": (lambda m: setattr(info_of(m, "x"), "length", 1 << 40), "its contents should end at byte"),
    "shorter": (lambda m: setattr(info_of(m, "x"), "length", 100), "its zip directory cannot be read"),
    "nothing": (lambda m: setattr(info_of(m, "x"), "length", 0), "it is empty"),
    "elsewhere": (lambda m: setattr(info_of(m, "x"), "offset", info_of(m, "x").offset + 1), "it is not a zip archive"),
    "another": (
        lambda m: vars(info_of(m, "x")).update(vars(info_of(m, "other"))),
        "holds F32 [3] for x, and .metadata says BF16 [2, 4]",
    ),
    "compressed": (
        lambda m: setattr(info_of(m, "x"), "transform_descriptors", ["stream.zstd"]),
        "x is stored transformed in {path}: ['stream.zstd']",
    ),
    "no tensors": (lambda m: m.state_dict_metadata.clear(), "lists no tensors"),
    "no storage": (lambda m: setattr(m, "storage_data", None), "does not list entries"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictions_are_refused(tmp_path, name):
    change, reason = CONTRADICTIONS[name]
    save(tmp_path, {"x": torch.ones(2, 4, dtype=torch.bfloat16), "other": torch.ones(3)})
    assert reason.format(path=tmp_path) in refusal(edit(tmp_path, change))


def test_two_chunks_of_a_sharded_tensor_that_do_not_meet_are_refused(two_ranks, tmp_path):
    for path in two_ranks.iterdir():
        (tmp_path / path.name).symlink_to(path)
    assert open_distributed(tmp_path, anything).assembly is not None  # links are followed
    (tmp_path / ".metadata").unlink()
    raw = (two_ranks / ".metadata").read_bytes()

    def lose(metadata: Metadata) -> None:
        metadata.state_dict_metadata["model.mlp1.columns"].chunks.pop()

    (tmp_path / ".metadata").write_bytes(raw)
    message = refusal(edit(tmp_path, lose))
    assert "the chunks of model.mlp1.columns do not make up the tensor: its element 3 is stored nowhere" in message

    def move(metadata: Metadata) -> None:
        [_, second] = metadata.state_dict_metadata["model.mlp1.columns"].chunks
        index = MetadataIndex("model.mlp1.columns", [0, 2])
        metadata.storage_data[index] = metadata.storage_data[MetadataIndex("model.mlp1.columns", second.offsets)]
        second.offsets = index.offset

    (tmp_path / ".metadata").write_bytes(raw)
    assert "its element 2 is stored twice" in refusal(edit(tmp_path, move))


def test_a_value_where_a_tensor_should_be_is_refused(tmp_path):
    save(tmp_path, {"x": torch.ones(2)})
    torch.save([1, 2], tmp_path / "other")
    length = (tmp_path / "other").stat().st_size
    edit(tmp_path, lambda m: vars(info_of(m, "x")).update(relative_path="other", offset=0, length=length))
    assert "holds a value of type list for x, and .metadata says F32 [2]" in refusal(tmp_path)


def test_chunks_that_share_bytes_are_refused(tmp_path):
    """Another tensor's bytes would be taken for the second one's."""
    save(tmp_path, {"x": torch.ones(2), "y": torch.zeros(2)})

    def move(metadata: Metadata) -> None:
        info_of(metadata, "y").offset = info_of(metadata, "x").offset

    assert "in the same bytes of" in refusal(edit(tmp_path, move))


def test_code_in_a_chunk_is_refused_and_not_run(tmp_path):
    save(tmp_path, {"x": torch.ones(2)})
    torch.save(Evil(os.mkdir, str(tmp_path / "victim")), tmp_path / "other")
    length = (tmp_path / "other").stat().st_size
    edit(tmp_path, lambda m: vars(info_of(m, "x")).update(relative_path="other", offset=0, length=length))
    assert "holds more than tensors" in refusal(tmp_path)
    assert not (tmp_path / "victim").exists()


def test_a_tensor_in_another_order_is_refused(tmp_path):
    assert "Call .contiguous()" in refusal(save(tmp_path, {"x": torch.ones(3, 2).t()}))


def test_too_many_runs_are_refused_before_anything_is_counted(tmp_path):
    save(tmp_path, {"fine": torch.ones(2), "x": torch.ones(2, 4)})
    rows = distributed._MOST_RUNS

    def cut(metadata: Metadata) -> None:
        entry = metadata.state_dict_metadata["x"]
        entry.size = torch.Size([rows, 4])
        index = MetadataIndex("x", [0, 2])
        metadata.storage_data[index] = info_of(metadata, "x")
        entry.chunks = [ChunkStorageMetadata(torch.Size([0, column]), torch.Size([rows, 2])) for column in (0, 2)]

    message = refusal(edit(tmp_path, cut))
    assert f"more than {rows} runs of elements, the last of them in x" in message
    assert "dcp_to_torch_save" in message


def test_a_gigantic_metadata_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed_metadata, "_LARGEST", 1000)
    assert "more than 1000 bytes" in refusal(save(tmp_path, {f"k{n}": torch.ones(1) for n in range(9)}))


def test_a_directory_without_metadata_is_refused(tmp_path):
    assert "holds no .metadata" in refusal(tmp_path)
    assert "holds no .metadata" in refusal(tmp_path / "nowhere")
