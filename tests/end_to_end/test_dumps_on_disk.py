"""What trainers dump converts as safetensors do: pytorch_model*.bin and directories of torch.distributed.checkpoint."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from support import DATA, copy_custom, edit_json, files_of, load_all, said, same_bits
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import CheckpointError

Tensors = Mapping[str, torch.Tensor]

NAMES = ("internlm2-300m", "qwen3moe-6b", "qwen3-300m-tied")
HEAD = "language_model.lm_head.weight"
PICKLED, DISTRIBUTED = "pytorch_model.bin", "torch.distributed.checkpoint"


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    assert [key for key in expected if not same_bits(found[key], expected[key])] == []


def files_but(without: tuple[str, ...], directory: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_of(directory).items() if name not in without}


def weights_of(directory: Path) -> list[str]:
    ends = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".distcp", ".metadata")
    return sorted(path.name for path in directory.iterdir() if path.name.endswith(ends))


# --- The same checkpoint in another container ---------------------------------------------------------------------


def take_away(directory: Path) -> dict[str, torch.Tensor]:
    """The tensors of a one-file checkpoint, which has none then."""
    tensors = load_all(directory)
    (directory / "model.safetensors").unlink()
    return tensors


def pickle_one(directory: Path) -> None:
    torch.save(take_away(directory), directory / PICKLED)


def pickle_shards(directory: Path) -> None:
    tensors = take_away(directory)
    weight_map = {key: f"pytorch_model-0000{number % 3 + 1}-of-00003.bin" for number, key in enumerate(tensors)}
    for name in sorted(set(weight_map.values())):
        torch.save({key: tensors[key] for key in tensors if weight_map[key] == name}, directory / name)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (directory / f"{PICKLED}.index.json").write_text(json.dumps(index))


def distribute(directory: Path, prefix: str = "", **beside: Any) -> None:
    state = {f"{prefix}{key}": tensor for key, tensor in take_away(directory).items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        dcp.save({**state, **beside}, checkpoint_id=directory, no_dist=True)


def distribute_beside_an_optimizer(directory: Path) -> None:
    states = {"optim.state.exp_avg": torch.ones(4, 4), "optim.param_groups.lr": 0.1, "step": 3}
    distribute(directory, "model.", **states)


Container = Callable[[Path], object]
CONTAINERS: dict[str, tuple[Container, str]] = {
    "one pickle": (pickle_one, PICKLED),
    "three pickles": (pickle_shards, PICKLED),
    "distributed": (distribute, DISTRIBUTED),
    "distributed, with an optimizer": (distribute_beside_an_optimizer, DISTRIBUTED),
}
every_container = pytest.mark.parametrize("kind", CONTAINERS)


def dumped(source: Path, directory: Path, kind: str) -> Path:
    """The checkpoint ``source`` in another container."""
    shutil.copytree(source, directory)
    CONTAINERS[kind][0](directory)
    assert not list(directory.glob("*.safetensors"))
    return directory


@every_container
@pytest.mark.parametrize("name", NAMES)
def test_a_custom_dump_converts_as_safetensors_do(kind: str, name: str, tmp_path: Path):
    custom = copy_custom(name, tmp_path / "custom")
    dump = dumped(custom, tmp_path / "dump", kind)
    internvl_bridge.to_hf(custom, tmp_path / "expected", order="name")
    report = internvl_bridge.to_hf(dump, tmp_path / "hf", order="name", max_shard_size="5GB")
    assert report.found.container == CONTAINERS[kind][1]
    assert report.found.spelling is None
    assert weights_of(tmp_path / "hf") == ["model.safetensors"]
    assert_same(load_all(tmp_path / "hf"), load_all(tmp_path / "expected"))
    sidecar = ("internvl_bridge.json",)
    assert files_but(sidecar, tmp_path / "hf") == files_but(sidecar, tmp_path / "expected")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert_same(load_all(tmp_path / "back"), load_all(custom))
    assert weights_of(tmp_path / "back") == ["model.safetensors"]
    assert files_of(tmp_path / "back").keys() == files_of(custom).keys() | {"internvl_bridge.json"}


@every_container
@pytest.mark.parametrize("name", NAMES)
def test_an_hf_dump_converts_as_safetensors_do(kind: str, name: str, tmp_path: Path):
    custom = copy_custom(name, tmp_path / "custom")
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    internvl_bridge.repair(tmp_path / "hf", tmp_path / "raw", layout="l2", experts="fused")
    dump = dumped(tmp_path / "raw", tmp_path / "dump", kind)
    report = internvl_bridge.to_custom(dump, tmp_path / "back")
    assert report.found.container == CONTAINERS[kind][1]
    assert report.found.spelling == ("L2 with fused experts" if "moe" in name else "L2")
    assert_same(load_all(tmp_path / "back"), load_all(custom))
    kept = internvl_bridge.repair(dump, tmp_path / "repaired")
    for known in ("container", "spelling", "head", "parameters"):  # a repair asks no sidecar for the family
        assert getattr(kept.found, known) == getattr(report.found, known)
    assert_same(load_all(tmp_path / "repaired"), load_all(tmp_path / "hf"))
    assert files_of(tmp_path / "repaired").keys() - {*weights_of(tmp_path / "repaired")} == (
        files_of(tmp_path / "hf").keys() - {"model.safetensors"}
    )
    assert kept.verification is not None
    assert kept.verification.identical


@every_container
def test_a_dump_can_be_verified_and_inspected(kind: str, tmp_path: Path):
    custom = copy_custom("qwen3moe-6b", tmp_path / "custom")
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    dump = dumped(custom, tmp_path / "dump", kind)
    hf_dump = dumped(tmp_path / "hf", tmp_path / "hf dump", kind)
    for left, right in [(dump, custom), (custom, dump), (dump, hf_dump), (hf_dump, dump), (hf_dump, custom)]:
        found = internvl_bridge.verify(left, right)
        assert found.identical
        assert len(found.equal) in {len(load_all(custom)), len(load_all(tmp_path / "hf"))}
    here, there = internvl_bridge.inspect(dump), internvl_bridge.inspect(custom)
    assert (here.container, there.container) == (CONTAINERS[kind][1], "safetensors")
    assert (here.parameters, here.bytes, here.tensors) == (there.parameters, there.bytes, there.tensors)
    assert (here.refusal, internvl_bridge.inspect(hf_dump).refusal) == (None, None)
    assert internvl_bridge.inspect(hf_dump).spelling == "L1"


@every_container
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_flipped_bit_of_a_dump_is_found(kind: str, side: str, tmp_path: Path):
    custom = copy_custom("internlm2-300m", tmp_path / "custom")
    dump = dumped(custom, tmp_path / "dump", kind)
    key = "language_model.model.layers.1.attention.wqkv.weight"
    raw = bytes(load_all(custom)[key].view(torch.uint8).flatten().tolist())
    [path] = [path for path in dump.iterdir() if path.suffix in {".bin", ".distcp"} and raw in path.read_bytes()]
    with path.open("r+b") as file:
        file.seek(path.read_bytes().index(raw) + 2 * 35)
        file.write(bytes([raw[70] ^ 1]))
    found = internvl_bridge.verify(*((dump, custom) if side == "left" else (custom, dump)))
    assert [(difference.key, difference.element) for difference in found.differences] == [(key, 35)]


@pytest.mark.parametrize("kind", ["one pickle", "distributed"])
def test_a_dump_serves_as_reference(kind: str, tmp_path: Path):
    custom = copy_custom("internlm2-300m", tmp_path / "custom")
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    (tmp_path / "hf" / "internvl_bridge.json").unlink()
    reference = dumped(custom, tmp_path / "dump", kind)
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back", reference=reference)
    assert report.family == "InternLM2"
    assert_same(load_all(tmp_path / "back"), load_all(custom))
    assert report.reference is not None
    assert report.reference.identical


def test_a_shared_storage_of_a_tied_model_is_a_copy(tmp_path: Path):
    """torch.save and DCP store one storage for both keys, or two: either way they are equal."""
    internvl_bridge.to_hf(copy_custom("qwen3-300m-tied", tmp_path / "custom"), tmp_path / "hf")
    for kind in ("one pickle", "distributed"):
        directory = shutil.copytree(tmp_path / "hf", tmp_path / kind)
        tensors = load_all(directory)
        tensors[HEAD] = tensors["language_model.model.embed_tokens.weight"]
        assert tensors[HEAD].data_ptr() == tensors["language_model.model.embed_tokens.weight"].data_ptr()
        (directory / "model.safetensors").unlink()
        save_file({"x": torch.zeros(1)}, directory / "model.safetensors")
        if kind == "distributed":
            distribute(directory, **tensors)
            (directory / ".metadata").write_bytes(without_x(directory))
        else:
            (directory / "model.safetensors").unlink()
            torch.save(tensors, directory / PICKLED)
        report = internvl_bridge.repair(directory, tmp_path / f"{kind} repaired")
        assert report.found.head == "copy"
        assert_same(load_all(tmp_path / f"{kind} repaired"), load_all(tmp_path / "hf"))
        assert any(f"{HEAD} is not written" in note for note in said(report))


def without_x(directory: Path) -> bytes:
    metadata = pickle.loads((directory / ".metadata").read_bytes())  # noqa: S301 (a test wrote it)
    del metadata.state_dict_metadata["x"]
    return pickle.dumps(metadata)


# --- How the output is cut ----------------------------------------------------------------------------------------


def test_shards_of_pickles_are_kept(tmp_path: Path):
    dump = dumped(copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "dump", "three pickles")
    report = internvl_bridge.to_hf(dump, tmp_path / "hf")
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    assert weights_of(tmp_path / "hf") == sorted([*shards, "model.safetensors.index.json"])
    assert internvl_bridge.verify(tmp_path / "custom", tmp_path / "hf").identical
    assert report.left_behind == ()


def test_a_distributed_dump_has_no_shards_to_keep(ranks: Path, tmp_path: Path):
    report = internvl_bridge.to_custom(ranks / "dump", tmp_path / "custom")
    assert weights_of(tmp_path / "custom") == ["model.safetensors"]
    assert report.left_behind == ()
    internvl_bridge.to_custom(ranks / "dump", tmp_path / "small", max_shard_size="100KB")
    names = sorted(path.name for path in (tmp_path / "small").glob("*.safetensors"))
    assert len(names) > 2
    assert names == [f"model-{n + 1:05d}-of-{len(names):05d}.safetensors" for n in range(len(names))]
    index = json.loads((tmp_path / "small" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == set(names)
    assert_same(load_all(tmp_path / "small"), load_all(tmp_path / "custom"))


def test_a_distributed_dump_becomes_shards_of_5_gigabytes(ranks: Path, monkeypatch: pytest.MonkeyPatch, tmp_path):
    from internvl_bridge.convert import prepare as preparation

    limits = []
    real = preparation.reshard
    monkeypatch.setattr(preparation, "reshard", lambda shards, limit: limits.append(limit) or real(shards, 100_000))
    report = internvl_bridge.to_custom(ranks / "dump", tmp_path / "custom")
    assert limits == [5_000_000_000]
    assert len([name for name in report.files if name.endswith(".safetensors")]) > 2
    internvl_bridge.to_custom(ranks / "dump", tmp_path / "own", max_shard_size=12_345_678)
    assert limits[1:] == [12_345_678]


@every_container
def test_all_of_a_dump_is_converted_or_named(kind: str, tmp_path: Path):
    dump = dumped(copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "dump", kind)
    (dump / "training_args.bin").write_bytes(b"anything")
    report = internvl_bridge.to_hf(dump, tmp_path / "hf")
    assert report.left_behind == ("training_args.bin",)
    notes = [note for note in said(report) if note.startswith("Left out")]
    named = ["Left out, as no weights of the model: optim, step."] if "optimizer" in kind else []
    assert notes == named
    kept = json.loads((tmp_path / "hf" / "internvl_bridge.json").read_text())["files"]
    assert not [name for name in kept if ".bin" in name or "metadata" in name]


def test_a_wrapped_state_dict(tmp_path: Path):
    dump = copy_custom("qwen2-300m", tmp_path / "custom")
    tensors = load_all(dump)
    (dump / "model.safetensors").unlink()
    torch.save({"model": tensors, "epoch": 3, "args": {"lr": 0.1}}, dump / PICKLED)
    report = internvl_bridge.to_hf(dump, tmp_path / "hf")
    assert "Left out, as no weights of the model: epoch, args." in said(report)
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert_same(load_all(tmp_path / "back"), tensors)


def test_views_of_one_buffer(tmp_path: Path):
    """As trainers keep flat parameters: every tensor starts somewhere in one storage."""
    dump = copy_custom("qwen2-300m", tmp_path / "custom")
    tensors = take_away(dump)
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    views = flat.split([tensor.numel() for tensor in tensors.values()])
    state = {key: view.view(tensors[key].shape) for key, view in zip(tensors, views, strict=True)}
    torch.save(state, dump / PICKLED)
    internvl_bridge.to_hf(dump, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert_same(load_all(tmp_path / "back"), tensors)


# --- Two ranks wrote it -------------------------------------------------------------------------------------------

WRITER = """if True:
    import os, sys, torch.distributed as dist, torch.distributed.checkpoint as dcp
    from safetensors.torch import load_file
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor
    rank, store, *directories = int(sys.argv[1]), *sys.argv[2:]
    dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    for source, target in zip(directories[::2], directories[1::2]):
        state = {}
        for key, tensor in load_file(source + "/model.safetensors").items():
            columns = "o_proj" in key or "down_proj" in key  # as tensor parallelism cuts them
            placement = Replicate() if key.endswith("norm.weight") else Shard(1 if columns and tensor.ndim > 1 else 0)
            state[key] = distribute_tensor(tensor, mesh, [placement])
        first = next(iter(state.values()))
        dcp.save({"model": state, "optim": {"exp_avg": first, "lr": 0.1}}, checkpoint_id=target)
    os._exit(0)  # gloo of torch 2.7 may hang while it is being taken down
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where two ranks have written what is in "raw" to "dump", and "internlm2" to "internlm2 dump": not to be changed.

    "raw" is an HF checkpoint with fused experts, and "internlm2" a custom one.
    """
    base = tmp_path_factory.mktemp("ranks")
    internvl_bridge.to_hf(copy_custom("qwen3moe-6b", base / "custom"), base / "hf")
    internvl_bridge.repair(base / "hf", base / "raw", layout="l2", experts="fused")
    copy_custom("internlm2-300m", base / "internlm2")
    arguments = [base / "store"]
    for source, target in ((base / "raw", base / "dump"), (base / "internlm2", base / "internlm2 dump")):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("model.safetensors"))
        arguments += [source, target]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(rank), *arguments]) for rank in range(2)]
    try:
        assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    finally:
        for writer in writers:
            writer.kill()
    return base


def test_what_two_ranks_wrote_converts_as_safetensors_do(ranks: Path, tmp_path: Path):
    two_ranks = ranks / "dump"
    assert len(list(two_ranks.glob("*.distcp"))) == 2
    report = internvl_bridge.to_custom(two_ranks, tmp_path / "custom")
    assert (report.found.container, report.found.spelling) == (DISTRIBUTED, "L2 with fused experts")
    assert_same(load_all(tmp_path / "custom"), load_all(ranks / "custom"))
    assert "Left out, as no weights of the model: optim." in said(report)
    internvl_bridge.repair(two_ranks, tmp_path / "repaired", order="name")
    internvl_bridge.repair(ranks / "raw", tmp_path / "expected", order="name")
    assert files_of(tmp_path / "repaired") == files_of(tmp_path / "expected")
    internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "home")
    assert_same(load_all(tmp_path / "home"), load_all(ranks / "hf"))


def test_what_two_ranks_wrote_can_be_verified_and_inspected(ranks: Path):
    two_ranks = ranks / "dump"
    for other in ("raw", "hf", "custom"):
        assert internvl_bridge.verify(two_ranks, ranks / other).identical
        assert internvl_bridge.verify(ranks / other, two_ranks).identical
    here, there = internvl_bridge.inspect(two_ranks), internvl_bridge.inspect(ranks / "raw")
    assert (here.container, here.spelling) == (DISTRIBUTED, "L2 with fused experts")
    assert (here.parameters, here.tensors, here.bytes) == (there.parameters, there.tensors, there.bytes)
    assert here.refusal is None


def test_a_custom_checkpoint_that_two_ranks_wrote(ranks: Path, tmp_path: Path):
    report = internvl_bridge.to_hf(ranks / "internlm2 dump", tmp_path / "hf", order="name")
    assert (report.found.container, report.family) == (DISTRIBUTED, "InternLM2")
    internvl_bridge.to_hf(ranks / "internlm2", tmp_path / "expected", order="name")
    assert_same(load_all(tmp_path / "hf"), load_all(tmp_path / "expected"))
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert_same(load_all(tmp_path / "back"), load_all(ranks / "internlm2"))


def test_weights_without_a_config_are_compared_key_by_key(ranks: Path, tmp_path: Path):
    for source, target in (("raw", "one pickle"), ("raw", "raw")):
        shutil.copytree(ranks / source, tmp_path / target)
        (tmp_path / target / "config.json").unlink()
    pickle_one(tmp_path / "one pickle")
    assert internvl_bridge.verify(tmp_path / "one pickle", tmp_path / "raw").identical
    distribute(shutil.copytree(tmp_path / "raw", tmp_path / "distributed"))
    assert internvl_bridge.verify(tmp_path / "distributed", tmp_path / "one pickle").identical
    tensors = torch.load(tmp_path / "one pickle" / PICKLED, weights_only=True)
    tensors["model.language_model.norm.weight"].view(torch.int16)[5] ^= 1
    torch.save(tensors, tmp_path / "one pickle" / PICKLED)
    [found] = internvl_bridge.verify(tmp_path / "distributed", tmp_path / "one pickle").differences
    assert (found.key, found.element) == ("model.language_model.norm.weight", 5)


# --- What is refused ----------------------------------------------------------------------------------------------


def refuse(command: str, source: Path, *words: str) -> None:
    """Run a conversion that must be refused, by the words given, and must leave nothing behind."""
    before = sorted(path.name for path in source.parent.iterdir())
    result = CliRunner().invoke(app, [command, str(source), str(source.parent / "output")])
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert sorted(path.name for path in source.parent.iterdir()) == before


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch '{self.proof}'",)


def test_the_malice_of_these_tests_works(tmp_path: Path):
    pickle.loads(pickle.dumps(Malice(tmp_path / "proof")))  # noqa: S301
    assert (tmp_path / "proof").exists()


COMMANDS = ("to-hf", "verify", "inspect")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["pickle", "beside the tensors", "metadata", "plain pickle"])
def test_nothing_in_a_dump_is_executed(command: str, place: str, tmp_path: Path):
    source, proof = copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "proof"
    match place:
        case "pickle":
            torch.save({**take_away(source), "mlp1.x": Malice(proof)}, source / PICKLED)
        case "beside the tensors":
            torch.save({"model": take_away(source), "args": Malice(proof)}, source / PICKLED)
        case "plain pickle":
            take_away(source)
            (source / PICKLED).write_bytes(pickle.dumps(Malice(proof)))
        case "metadata":
            distribute(source)
            (source / ".metadata").write_bytes(pickle.dumps(Malice(proof)))
    if command == "to-hf":
        refuse(command, source, ".metadata" if place == "metadata" else PICKLED)
    else:
        arguments = [source, DATA / "custom" / "qwen2-300m"] if command == "verify" else [source]
        result = CliRunner().invoke(app, [command, *map(str, arguments)])
        assert result.exit_code == 2
        assert result.stderr.startswith("Error: ")
    assert not proof.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["custom"]


def test_malice_in_a_chunk_is_not_executed(tmp_path: Path):
    source, proof = copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "proof"
    distribute(source)
    [chunks] = source.glob("*.distcp")
    data = chunks.read_bytes()
    torch.save(Malice(proof), tmp_path / "malice")
    malice = (tmp_path / "malice").read_bytes()
    (tmp_path / "malice").unlink()
    metadata = pickle.loads((source / ".metadata").read_bytes())  # noqa: S301 (a test wrote it)
    info = next(iter(metadata.storage_data.values()))
    info.offset, info.length = len(data), len(malice)
    chunks.write_bytes(data + malice)
    (source / ".metadata").write_bytes(pickle.dumps(metadata))
    refuse("to-hf", source, chunks.name)
    assert not proof.exists()


def test_safetensors_win_and_the_pickle_is_named(tmp_path: Path):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    proof = tmp_path / "proof"
    torch.save({"x": Malice(proof)}, custom / PICKLED)
    report = internvl_bridge.to_hf(custom, tmp_path / "hf")
    assert report.found.container == "safetensors"
    assert report.left_behind == (PICKLED,)
    assert not proof.exists()
    assert internvl_bridge.verify(DATA / "custom" / "qwen2-300m", tmp_path / "hf").identical
    assert f"Left behind: {PICKLED}" in CliRunner().invoke(app, ["to-hf", str(custom), str(tmp_path / "2")]).stdout


def test_pickles_win_over_a_distributed_dump(tmp_path: Path):
    custom = copy_custom("qwen2-300m", tmp_path / "custom")
    tensors = load_all(custom)
    distribute(custom)
    torch.save(tensors, custom / PICKLED)
    report = internvl_bridge.to_hf(custom, tmp_path / "hf")
    assert report.found.container == PICKLED
    assert "__0_0.distcp" in report.left_behind


@pytest.mark.parametrize("command", ["to-custom", "repair", "to-hf"])
def test_a_distributed_dump_without_a_config(command: str, tmp_path: Path):
    source = copy_custom("qwen2-300m", tmp_path / "dump")
    distribute(source)
    (source / "config.json").unlink()
    refuse(command, source, "config.json", "--config")


def test_a_dump_whose_config_is_of_the_other_format(tmp_path: Path):
    source = copy_custom("qwen2-300m", tmp_path / "dump")
    distribute(source, "model.")
    internvl_bridge.to_hf(copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "hf")
    shutil.copy(tmp_path / "hf" / "config.json", source)
    refuse("to-custom", source, "mlp1")


@every_container
def test_a_dump_of_another_size_than_its_config_says(kind: str, tmp_path: Path):
    dump = dumped(copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "dump", kind)
    edit_json(dump / "config.json", lambda config: config["llm_config"].update(intermediate_size=128))
    refuse("to-hf", dump, "mlp.", "config.json describes")


@pytest.mark.parametrize("kind", ["one pickle", "three pickles", "distributed"])
def test_a_dump_that_breaks_off(kind: str, tmp_path: Path):
    dump = dumped(copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "dump", kind)
    path = max(path for path in dump.iterdir() if path.suffix in {".bin", ".distcp"})
    path.write_bytes(path.read_bytes()[:-5000])
    refuse("to-hf", dump, path.name)


def test_a_shard_that_is_missing(tmp_path: Path):
    dump = dumped(copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "dump", "three pickles")
    (dump / "pytorch_model-00002-of-00003.bin").unlink()
    refuse("to-hf", dump, "pytorch_model-00002-of-00003.bin", "not there")


def test_an_index_that_lies(tmp_path: Path):
    dump = dumped(copy_custom("qwen2-300m", tmp_path / "custom"), tmp_path / "dump", "three pickles")
    path = dump / f"{PICKLED}.index.json"
    edit_json(path, lambda index: index["weight_map"].update({"mlp1.0.bias": "pytorch_model-00001-of-00003.bin"}))
    edit_json(path, lambda index: index["weight_map"].update({"mlp1.0.weight": "pytorch_model-00003-of-00003.bin"}))
    refuse("to-hf", dump, f"{PICKLED}.index.json places mlp1.0.", "but it is in")


def test_a_file_of_two_ranks_that_is_missing(ranks: Path, tmp_path: Path):
    dump = shutil.copytree(ranks / "dump", tmp_path / "dump")
    (dump / "__1_0.distcp").unlink()
    refuse("to-custom", dump, "__1_0.distcp")


@pytest.mark.parametrize("verify", [True, False])
def test_a_record_that_does_not_have_its_crc_is_refused(verify: bool, tmp_path: Path):
    source = copy_custom("qwen3-300m", tmp_path / "source")
    torch.save(load_all(source), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    path = source / "pytorch_model.bin"
    internvl_bridge.to_hf(source, tmp_path / "whole", verify=verify)
    data = bytearray(path.read_bytes())
    weight = load_all(tmp_path / "whole")["multi_modal_projector.linear_1.weight"]
    place = data.index(weight.view(torch.uint8).numpy().tobytes())
    data[place + 5] ^= 1
    path.write_bytes(data)
    words = rf"{path} is damaged: its {weight.nbytes} bytes from {place} on do not have the CRC that the file states"
    with pytest.raises(CheckpointError, match=words):
        internvl_bridge.to_hf(source, tmp_path / "hf", verify=verify)
    assert not (tmp_path / "hf").exists()
    internvl_bridge.to_hf(source, tmp_path / "hf", verify=verify, accept=["checksums"])
