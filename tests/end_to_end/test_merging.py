"""Adapters are merged into checkpoints, taken out of them, and weights are cast, as a user does it."""

import errno
import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from adapters import P, lora_config, random_adapter, weights_of
from safetensors.torch import load_file, save_file
from support import DATA, edit_json, files_of, load_all, rewrite, shard
from typer.testing import CliRunner
from wrapped import HALVES, factors_in, save_as_trainer, wrapped_by_trainer

import internvl_bridge
from internvl_bridge.checkpoint import computed_files
from internvl_bridge.cli.app import app
from internvl_bridge.errors import (
    CheckpointError,
    DifferenceError,
    OptionError,
    OutOfRangeError,
    OutputError,
    UnsupportedModelError,
)
from internvl_bridge.storage import publishing, shard_jobs
from internvl_bridge.storage.publishing import partial_path

Custom = Callable[[str], Path]
Tensors = dict[str, torch.Tensor]
NAME = "qwen2-300m"
EMBED = "language_model.model.embed_tokens"


def sums(weights: Tensors, factors: Tensors, scale: float = 2.0) -> Tensors:
    """W + s B A of whole numbers over 64: exact in float64, and rounded to the dtype of W by way of float32."""
    made = dict(weights)
    for key in [key for key in factors if key.endswith("lora_A.weight")]:
        weight = f"{key.removeprefix(P).removesuffix('.lora_A.weight')}.weight"
        change = factors[key.replace("lora_A", "lora_B")].double() @ factors[key].double()
        made[weight] = (weights[weight].double() + scale * change).float().to(weights[weight].dtype)
    return made


def assert_equal(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    assert [key for key in expected if not torch.equal(found[key], expected[key])] == []
    assert all(found[key].dtype == expected[key].dtype for key in expected)


def save_adapter(directory: Path, tensors: Tensors, **config: Any) -> Path:
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    (directory / "adapter_config.json").write_text(json.dumps(lora_config(**config)))
    return directory


@pytest.fixture
def plain(custom: Custom) -> Path:
    return custom(NAME)


@pytest.fixture
def trained(plain: Path, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_as_trainer(plain, tmp_path / "trained")
    return tmp_path / "trained"


# --- What a trainer has left in the weights -------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [{HALVES[0]: 2, HALVES[1]: 4}, {HALVES[0]: 4}, {HALVES[1]: 2}], ids=str)
def test_a_checkpoint_of_internvls_trainer_is_merged(ranks: dict[str, int], plain: Path, tmp_path: Path):
    torch.manual_seed(1)
    factors = save_as_trainer(plain, tmp_path / "trained", ranks)
    report = internvl_bridge.merge(tmp_path / "trained", tmp_path / "merged")
    assert_equal(load_all(tmp_path / "merged"), sums(load_all(plain), factors))
    assert report.computed is not None
    assert report.computed.modules == {
        key.removeprefix(P).removesuffix(".lora_A.weight"): (2.0,) for key in factors if key.endswith("lora_A.weight")
    }
    before, after = files_of(plain), files_of(tmp_path / "merged")
    changed = {"model.safetensors", "internvl_bridge.json", "config.json"}
    assert {name for name in {*before, *after} if before.get(name) != after.get(name)} == changed
    zeros = {"use_backbone_lora": 0, "use_llm_lora": 0}
    assert json.loads(after["config.json"]) == json.loads(before["config.json"]) | zeros
    assert internvl_bridge.verify_checksums(tmp_path / "merged").intact
    assert internvl_bridge.to_hf(tmp_path / "merged", tmp_path / "hf").ok


@pytest.mark.parametrize("command", ["to-hf", "inspect", "plan"])
def test_the_refusal_of_a_conversion_has_commands_to_paste(command: str, trained: Path, tmp_path: Path):
    arguments = [command, str(trained), *([str(tmp_path / "output")] if command != "inspect" else [])]
    told = CliRunner().invoke(app, arguments).output
    words = " ".join(told.split())
    for name, made in (("merge", "MERGED"), ("extract", "PARTS")):
        begin = words.index(f"internvl-bridge {name}")
        command_line = words[begin : words.index(made, begin) + len(made)].replace(made, str(tmp_path / made))
        result = CliRunner().invoke(app, shlex.split(command_line)[1:])
        assert result.exit_code == 0, result.output
    assert internvl_bridge.verify(tmp_path / "MERGED", tmp_path / "MERGED").identical


def test_what_is_taken_out_and_merged_again_is_the_same(trained: Path, plain: Path, tmp_path: Path):
    parts = internvl_bridge.extract(trained, tmp_path / "parts")
    assert parts.base.ok
    assert parts.adapter.computed is parts.base.computed is None
    assert_equal(load_all(tmp_path / "parts" / "base"), load_all(plain))
    stored = load_file(trained / "model.safetensors")
    assert_equal(load_all(tmp_path / "parts" / "adapter"), factors_in(stored))
    internvl_bridge.merge(trained, tmp_path / "merged")
    internvl_bridge.merge(tmp_path / "parts" / "base", tmp_path / "again", adapters=[tmp_path / "parts" / "adapter"])
    one, other = files_of(tmp_path / "merged"), files_of(tmp_path / "again")
    assert {name for name in one if one[name] != other[name]} <= {"internvl_bridge.json"}
    assert internvl_bridge.inspect_adapter(tmp_path / "parts" / "adapter").refusal is None


def keep_pickled(tensors: Tensors, directory: Path) -> None:
    torch.save({"state_dict": tensors, "epoch": 1}, directory / "pytorch_model.bin")


def keep_distributed(tensors: Tensors, directory: Path) -> None:
    dcp.save({"model": tensors}, checkpoint_id=directory, no_dist=True)


@pytest.mark.parametrize("keep", [keep_pickled, keep_distributed])
@pytest.mark.parametrize("stated", ["--alpha", "adapter_config.json"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_state_dict_of_a_peft_model_is_merged(
    keep: Callable[[Tensors, Path], None], stated: str, plain: Path, tmp_path: Path
):
    torch.manual_seed(2)
    hf = tmp_path / "hf"
    internvl_bridge.to_hf(plain, hf, layout="l2")
    weights = load_all(hf)
    factors = {key: tensor / 64 for key, tensor in random_adapter(weights, lambda key: "layers" in key).items()}
    modules = {key.removeprefix(P).removesuffix(".lora_A.weight") for key in factors if key.endswith("lora_A.weight")}
    dumped: Tensors = {}
    for key, weight in weights.items():
        module, _, end = key.rpartition(".")
        dumped[f"{P}{module}.base_layer.{end}" if module in modules else P + key] = weight
    dumped |= {key.removesuffix("weight") + "default.weight": tensor for key, tensor in factors.items()}
    (hf / "model.safetensors").unlink()
    keep(dumped, hf)
    options: dict[str, Any] = {"alpha": 8} if stated == "--alpha" else {}
    if not options:
        with pytest.raises(OptionError, match=r"Add --alpha ALPHA"):
            internvl_bridge.merge(hf, tmp_path / "merged")
        (hf / "adapter_config.json").write_text(json.dumps(lora_config(lora_alpha=8)))
    internvl_bridge.merge(hf, tmp_path / "merged", **options)
    assert_equal(load_all(tmp_path / "merged"), sums(weights, factors, 4.0))
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    internvl_bridge.extract(hf, tmp_path / "parts", **options)
    internvl_bridge.merge(tmp_path / "parts" / "base", tmp_path / "again", adapters=[tmp_path / "parts" / "adapter"])
    assert_equal(load_all(tmp_path / "again"), load_all(tmp_path / "merged"))


def test_a_prefix_before_the_names_of_peft_is_taken_off(plain: Path, tmp_path: Path):
    internvl_bridge.to_hf(plain, tmp_path / "hf")
    weights = load_all(tmp_path / "hf")
    head = weights.pop("language_model.lm_head.weight")
    weights |= {"language_model.lm_head.original_module.weight": head}
    weights |= {"language_model.lm_head.modules_to_save.default.weight": head + 1}
    save_file({f"module.{P}{key}": t for key, t in weights.items()}, tmp_path / "hf" / "model.safetensors")
    internvl_bridge.merge(tmp_path / "hf", tmp_path / "merged", alpha=1)
    assert torch.equal(load_all(tmp_path / "merged")["language_model.lm_head.weight"], head + 1)


# --- Adapters beside a base -----------------------------------------------------------------------------------------


def test_an_adapter_of_the_other_format_changes_the_same(plain: Path, tmp_path: Path):
    internvl_bridge.to_hf(plain, tmp_path / "hf")
    adapters = [DATA / "adapters" / "hf" / "qwen2-300m-rslora", DATA / "adapters" / "custom" / "qwen2-300m-all-linear"]
    for base in (plain, tmp_path / "hf"):
        internvl_bridge.merge(base, tmp_path / f"{base.name}-merged", adapters=adapters)
    assert internvl_bridge.verify(tmp_path / f"{NAME}-merged", tmp_path / "hf-merged").identical
    assert not internvl_bridge.verify(plain, tmp_path / "hf-merged").identical


def test_an_adapter_of_transformers_4_is_one_for_a_base_in_any_way(custom: Custom, tmp_path: Path):
    base = custom("qwen3moe-6b")
    internvl_bridge.to_hf(base, tmp_path / "hf", layout="l2", experts="fused")
    tensors = random_adapter(weights_of("qwen3moe-6b", "4"), lambda key: "experts" in key)
    adapter = save_adapter(tmp_path / "adapter", tensors)
    for place in (base, tmp_path / "hf"):
        internvl_bridge.merge(place, tmp_path / f"{place.name}-merged", adapters=[adapter], transformers=4)
    assert internvl_bridge.verify(tmp_path / "qwen3moe-6b-merged", tmp_path / "hf-merged").identical
    assert internvl_bridge.verify(base, tmp_path / "hf-merged").differences


def test_several_adapters_are_added_before_rounding(plain: Path, tmp_path: Path):
    torch.manual_seed(3)
    weights = load_all(plain)
    many = [
        {key: tensor / 64 for key, tensor in random_adapter(weights, lambda key: "q_proj" in key).items()}
        for _ in range(3)
    ]
    places = [save_adapter(tmp_path / f"adapter-{number}", tensors) for number, tensors in enumerate(many)]
    internvl_bridge.merge(plain, tmp_path / "merged", adapters=places)
    at_once = {key: torch.cat([tensors[key] for tensors in many], dim=0 if "lora_A" in key else 1) for key in many[0]}
    assert_equal(load_all(tmp_path / "merged"), sums(weights, at_once))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_adapters_that_bring_the_embeddings_along_can_be_added(dtype: torch.dtype, plain: Path, tmp_path: Path):
    weights = load_all(plain)
    words, hidden = weights[f"{EMBED}.weight"].shape
    shapes = {"A": (2, words), "B": (hidden, 2)}
    places = []
    for number in range(2):
        factors = {f"{P}{EMBED}.lora_embedding_{name}": torch.ones(shape) for name, shape in shapes.items()}
        factors[f"{P}{EMBED}.base_layer.weight"] = weights[f"{EMBED}.weight"].to(dtype)
        places.append(save_adapter(tmp_path / f"adapter-{number}", factors))
    report = internvl_bridge.merge(plain, tmp_path / "merged", adapters=places)
    before, after = weights[f"{EMBED}.weight"], load_all(tmp_path / "merged")[f"{EMBED}.weight"]
    assert torch.equal(after, (before.double() + 8).float().to(before.dtype))
    assert not any("its own copy" in warning for warning in report.warnings)
    again = internvl_bridge.merge(tmp_path / "merged", tmp_path / "again", adapters=places[:1])
    assert any("its own copy of language_model.model.embed_tokens.weight" in warning for warning in again.warnings)


def test_modules_of_the_model_are_kept_and_states_of_a_trainer_left(plain: Path, tmp_path: Path):
    for name in ("modeling_internvl_chat.py", "optimizer_tools.py"):
        (plain / name).write_text("raise SystemExit\n")
    for name in ("optimizer.pt", "trainer_state.json", "zero_to_fp32.py"):
        (plain / name).write_text("{}")
    report = internvl_bridge.cast(plain, tmp_path / "cast", dtype="float32")
    assert report.left_behind == ("optimizer.pt", "trainer_state.json", "zero_to_fp32.py")
    assert {"modeling_internvl_chat.py", "optimizer_tools.py"} <= {path.name for path in (tmp_path / "cast").iterdir()}


def test_shards_and_what_is_not_changed_stay_as_they_are(plain: Path, tmp_path: Path):
    shard(plain, lambda key: int("vision" in key))
    tensors = random_adapter(load_all(plain), lambda key: "layers.1.mlp" in key)
    report = internvl_bridge.merge(plain, tmp_path / "merged", adapters=[save_adapter(tmp_path / "adapter", tensors)])
    assert report.computed is not None
    assert report.computed.tensors == len(tensors) / 2
    assert report.left_behind == ()
    vision = "model-00002-of-00002.safetensors"
    assert load_file(tmp_path / "merged" / vision).keys() == load_file(plain / vision).keys()
    assert internvl_bridge.verify(plain, tmp_path / "merged").differences
    index = "model.safetensors.index.json"
    maps = [json.loads((place / index).read_text())["weight_map"] for place in (plain, tmp_path / "merged")]
    assert maps[0] == maps[1]


@pytest.mark.parametrize("name", ["qwen3-300m-tied", "qwen3-300m"])
def test_embeddings_of_a_tied_model_change_alone(name: str, custom: Custom, tmp_path: Path):
    source = custom(name)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    weights = load_all(source)
    words, hidden = weights[f"{EMBED}.weight"].shape
    factors = {
        f"{P}{EMBED}.lora_embedding_A": torch.ones(2, words),
        f"{P}{EMBED}.lora_embedding_B": torch.ones(hidden, 2),
    }
    adapter = save_adapter(tmp_path / "adapter", factors)
    for place in (source, tmp_path / "hf"):
        merged = tmp_path / f"{place.name}-merged"
        report = internvl_bridge.merge(place, merged, adapters=[adapter])
        assert any("The model was tied" in warning for warning in report.warnings) is name.endswith("tied")
        assert report.verification is not None
        found = load_all(merged)
        [head] = [tensor for key, tensor in found.items() if key.endswith("lm_head.weight")]
        [embed] = [tensor for key, tensor in found.items() if key.endswith("embed_tokens.weight")]
        before = weights[f"{EMBED}.weight"]
        assert torch.equal(head, weights.get("language_model.lm_head.weight", before))
        assert torch.equal(embed, (before.double() + 4).float().to(before.dtype))
        assert internvl_bridge.inspect(merged).head == "own"
        there = internvl_bridge.to_custom if place.name == "hf" else internvl_bridge.to_hf
        there(merged, tmp_path / f"{place.name}-there")
        assert internvl_bridge.verify(merged, tmp_path / f"{place.name}-there").identical


# --- Casting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["custom", "hf"])
def test_weights_are_cast_and_config_json_follows(kind: str, plain: Path, tmp_path: Path):
    source = plain
    if kind == "hf":
        internvl_bridge.to_hf(plain, tmp_path / "hf")
        source = tmp_path / "hf"
    internvl_bridge.cast(source, tmp_path / "wide", dtype="float32")
    report = internvl_bridge.cast(tmp_path / "wide", tmp_path / "half", dtype="float16")
    expected = {key: tensor.to(torch.float16) for key, tensor in load_all(source).items()}
    assert_equal(load_all(tmp_path / "half"), expected)
    assert report.computed is not None
    assert [*report.computed.roundings] == ["language model", "projector", "vision tower"]
    wide = load_all(tmp_path / "wide")
    errors = [((t - expected[key].float()).abs() / t.abs()).nan_to_num(0).max() for key, t in wide.items()]
    assert max(found.error for found in report.computed.roundings.values()) == pytest.approx(float(max(errors)))
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert {config.get("torch_dtype"), config.get("dtype")} <= {"float16", None}
    there = internvl_bridge.to_hf if kind == "custom" else internvl_bridge.to_custom
    made = there(tmp_path / "half", tmp_path / "there")
    assert not any("float16" in note or "bfloat16" in note for note in (*made.notes, *made.warnings))
    assert internvl_bridge.verify(tmp_path / "half", tmp_path / "there").identical
    back = internvl_bridge.cast(tmp_path / "wide", tmp_path / "back", dtype="bfloat16")
    assert back.ok
    assert internvl_bridge.verify(source, tmp_path / "back").identical


def test_nothing_to_cast_is_said(plain: Path, tmp_path: Path):
    report = internvl_bridge.cast(plain, tmp_path / "same", dtype="bfloat16")
    assert any("All weights are in bfloat16 already" in warning for warning in report.warnings)
    assert internvl_bridge.verify(plain, tmp_path / "same").identical


def test_a_number_that_does_not_fit_is_refused_and_nothing_is_left(plain: Path, tmp_path: Path):
    def grow(tensors: Tensors) -> None:
        tensors["mlp1.0.bias"][3] = 1e6

    rewrite(plain, grow)
    with pytest.raises(OutOfRangeError, match=r"Element 3 of mlp1\.0\.bias was 999424 .* F16 cannot hold"):
        internvl_bridge.cast(plain, tmp_path / "cast", dtype="float16")
    assert not (tmp_path / "cast").exists()
    assert not partial_path(tmp_path / "cast").exists()


def test_a_merge_can_cast_everything(trained: Path, plain: Path, tmp_path: Path):
    internvl_bridge.merge(trained, tmp_path / "merged", dtype="float32")
    weights = {key: tensor.float() for key, tensor in load_all(plain).items()}
    assert_equal(load_all(tmp_path / "merged"), sums(weights, factors_in(load_file(trained / "model.safetensors"))))


# --- Stopped, damaged, changed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("same_machine", [True, False])
def test_a_merge_goes_on_where_it_was_stopped_unless_results_could_differ(
    same_machine: bool, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shard(trained, lambda key: len(key) % 4)
    output, write, written = tmp_path / "merged", shard_jobs.write_file, []

    def failing(path: Path, *arguments: Any) -> Any:
        if len(written) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        written.append(path.name)
        return write(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shard_jobs, "write_file", failing)
        with pytest.raises(OSError, match="Input/output error"):
            internvl_bridge.merge(trained, output, workers=1)
    if not same_machine:
        monkeypatch.setattr(computed_files, "machine", lambda: {"torch": "another", "cpu": "other"})
    announced = CliRunner().invoke(app, ["clean", str(tmp_path)])
    command = next(line for line in announced.output.splitlines() if "internvl-bridge merge" in line)
    result = CliRunner().invoke(app, shlex.split(command.partition("internvl-bridge ")[2]))
    assert result.exit_code == 0, result.output
    assert ("Resuming: 2 of" in result.output) is same_machine
    assert ("2 file(s) that an earlier run had finished" in result.output) is same_machine
    monkeypatch.undo()
    internvl_bridge.merge(trained, tmp_path / "at-once")
    assert internvl_bridge.verify(output, tmp_path / "at-once").identical


def test_an_extraction_that_was_stopped_between_both_goes_on(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stop(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), "disk")

    with monkeypatch.context() as patch:
        patch.setattr(publishing, "put_in_place", put_but_the_second(publishing.put_in_place, stop))
        with pytest.raises(OSError, match="Input/output error"):
            internvl_bridge.extract(trained, tmp_path / "parts")
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["adapter", "base.partial"]
    parts = internvl_bridge.extract(trained, tmp_path / "parts")
    assert parts.base.kept == ("model.safetensors",)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["adapter", "base"]


def put_but_the_second(put: Callable[..., None], stop: Callable[..., None]) -> Callable[..., None]:
    calls: list[object] = []

    def doing(place: object, *arguments: Any, **options: Any) -> None:
        calls.append(place)
        (put if len(calls) == 1 else stop)(place, *arguments, **options)

    return doing


# --- Damage -----------------------------------------------------------------------------------------------------------


def flip(path: Path, offset: int) -> None:
    """Change a byte of ``path``, and none of its times."""
    times = path.stat()
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_what_a_dump_states_of_its_bytes_is_checked_where_they_are_computed_with(plain: Path, tmp_path: Path):
    weights = load_all(plain)
    (plain / "model.safetensors").unlink()
    torch.save(weights, plain / "pytorch_model.bin")
    data = (plain / "pytorch_model.bin").read_bytes()
    place = data.index(weights["mlp1.1.weight"].view(torch.uint8).numpy().tobytes())
    flip(plain / "pytorch_model.bin", place + 7)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is damaged"):
        internvl_bridge.cast(plain, tmp_path / "cast", dtype="float32")
    assert not (tmp_path / "cast").exists()
    internvl_bridge.cast(plain, tmp_path / "cast", dtype="float32", accept=["checksums"])


def test_recorded_checksums_are_checked_where_tensors_are_computed(plain: Path, tmp_path: Path):
    internvl_bridge.to_hf(plain, tmp_path / "hf")
    path = tmp_path / "hf" / "model.safetensors"
    flip(path, path.stat().st_size - 3)
    with pytest.raises(CheckpointError, match="do not have the checksum that internvl_bridge"):
        internvl_bridge.cast(tmp_path / "hf", tmp_path / "cast", dtype="float32")
    os.utime(path)
    report = internvl_bridge.cast(tmp_path / "hf", tmp_path / "other", dtype="float32")
    assert any(" tensors do not have the checksums" in warning for warning in report.warnings)
    assert not any("were not compared" in note for note in report.notes)


def test_the_checksum_of_an_adapter_is_checked(plain: Path, tmp_path: Path):
    adapter = DATA / "adapters" / "custom" / "qwen2-300m-all-linear"
    made = tmp_path / "lora-hf"
    internvl_bridge.to_hf(adapter, made, base=plain)
    flip(made / "adapter_model.safetensors", (made / "adapter_model.safetensors").stat().st_size - 3)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors is damaged"):
        internvl_bridge.merge(plain, tmp_path / "merged", adapters=[made])
    os.utime(made / "adapter_model.safetensors")
    report = internvl_bridge.merge(plain, tmp_path / "merged", adapters=[made])
    assert any("was changed since internvl_bridge.json" in warning for warning in report.warnings)


def test_another_command_does_not_go_on(trained: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(path: Path, *_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    output, write, written = tmp_path / "output", shard_jobs.write_file, []

    def once(path: Path, *arguments: Any) -> Any:
        written.append(path.name)
        return write(path, *arguments) if len(written) == 1 else failing(path)

    monkeypatch.setattr(shard_jobs, "write_file", once)
    with pytest.raises(OSError, match="Input/output error"):
        internvl_bridge.to_hf(plain, output, max_shard_size="60KB", workers=1)
    monkeypatch.undo()
    with pytest.raises(OutputError, match="begun by 'to-hf', and this is 'merge'"):
        internvl_bridge.merge(trained, output)


def test_a_sum_that_was_written_wrong_is_found(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compute = computed_files.ComputedSource._compute
    calls = []

    def wrong(source: computed_files.ComputedSource, first: int, rounded: torch.Tensor) -> None:
        compute(source, first, rounded)
        calls.append(first)
        if len(calls) == 1:
            rounded[0] += 1

    monkeypatch.setattr(computed_files.ComputedSource, "_compute", wrong)
    with pytest.raises(DifferenceError, match=r"is not what was read: .*proj.*weight differs from element 0"):
        internvl_bridge.merge(trained, tmp_path / "merged", workers=1)
    assert not (tmp_path / "merged").exists()


def test_an_adapter_that_changes_meanwhile_is_noticed(plain: Path, tmp_path: Path):
    tensors = random_adapter(load_all(plain), lambda key: "q_proj" in key)
    adapter = save_adapter(tmp_path / "adapter", tensors)

    def progress(task: str, *_: object) -> Callable[[int, int], None]:
        if "verifying" in task:
            save_file({key: tensor + 1 for key, tensor in tensors.items()}, adapter / "adapter_model.safetensors")
        return lambda *_: None

    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors was changed"):
        internvl_bridge.merge(plain, tmp_path / "merged", adapters=[adapter], progress=progress)
    assert not (tmp_path / "merged").exists()


# --- Refusals, and what is printed ------------------------------------------------------------------------------------


def test_there_must_be_an_adapter(plain: Path, tmp_path: Path):
    with pytest.raises(OptionError, match=r"holds no adapter beside its weights, and none is given\. Add --adapter"):
        internvl_bridge.merge(plain, tmp_path / "output")
    with pytest.raises(OptionError, match="There is nothing to extract"):
        internvl_bridge.extract(plain, tmp_path / "output")
    adapter = DATA / "adapters" / "custom" / "qwen2-300m-all-linear"
    with pytest.raises(OptionError, match="Leave out --alpha"):
        internvl_bridge.merge(plain, tmp_path / "output", adapters=[adapter], alpha=4)
    for place, says in ((tmp_path / "nowhere", "For --adapter: .*does not exist"), (plain, "so it is not an adapter")):
        with pytest.raises(OptionError, match=says):
            internvl_bridge.merge(plain, tmp_path / "output", adapters=[place])
    with pytest.raises(CheckpointError, match="internvl-bridge merge BASE OUTPUT --adapter"):
        internvl_bridge.merge(adapter, tmp_path / "output")


def test_what_the_user_states_against_a_file_is_warned_of(trained: Path, tmp_path: Path):
    report = internvl_bridge.merge(trained, tmp_path / "merged", alpha=6)
    assert report.computed is not None
    assert {*report.computed.modules.values()} == {(3.0,)}
    assert any("--alpha 6 counts. By config.json" in warning for warning in report.warnings)
    (trained / "adapter_config.json").write_text(json.dumps(lora_config()))
    with pytest.raises(OptionError, match=r"adapter_config\.json states how the factors are scaled, and --alpha does"):
        internvl_bridge.extract(trained, tmp_path / "parts", alpha=6)
    internvl_bridge.extract(trained, tmp_path / "parts")
    with pytest.raises(CheckpointError, match=r"merge both: internvl-bridge merge \S+/parts/base OUTPUT --adapter"):
        internvl_bridge.inspect(tmp_path / "parts")


def test_a_wrapped_checkpoint_is_merged_and_not_cast(trained: Path, tmp_path: Path):
    with pytest.raises(UnsupportedModelError, match=r"not merged into its base weights: .*Merge it"):
        internvl_bridge.cast(trained, tmp_path / "output", dtype="float32")


def test_factors_that_are_integers_are_refused(trained: Path, tmp_path: Path):
    def quantise(tensors: Tensors) -> None:
        key = next(key for key in tensors if ".lora_A." in key)
        tensors[key] = tensors[key].to(torch.int8)

    rewrite(trained, quantise)
    with pytest.raises(UnsupportedModelError, match="has dtype I8, which factors do not have"):
        internvl_bridge.merge(trained, tmp_path / "output")


def told(*arguments: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_report_names_every_module_and_says_what_it_is(trained: Path, tmp_path: Path):
    merged = told("merge", trained, tmp_path / "merged", "--dtype", "float16")
    assert "Arithmetic, not a bit-exact copy: 65 of 65 tensors are W + s B A in float64, rounded once" in merged
    assert "2 x vision_model.encoder.layers.*.attn.qkv, s = 2" in merged
    assert "Rounded: the vision tower, largest relative error" in merged
    every = told("merge", trained, tmp_path / "again", "--verbose")
    assert "1 x vision_model.encoder.layers.1.attn.qkv, s = 2" in every
    planned = told("merge", trained, tmp_path / "planned", "--dry-run")
    assert "Would merge" in planned
    assert not (tmp_path / "planned").exists()
    assert "2 x language_model.model.layers.*.mlp.up_proj, s = 2" in planned
    assert "Would extract from" in told("extract", trained, tmp_path / "planned", "--dry-run")
    extracted = told("extract", trained, tmp_path / "parts")
    assert extracted.count("Extracted ") == 2


def test_state_dicts_in_memory_are_refused_with_the_commands(trained: Path):
    weights = wrapped_by_trainer(weights_of(NAME, "custom"), dict.fromkeys(HALVES, 2))
    config = json.loads((trained / "config.json").read_text())
    with pytest.raises(internvl_bridge.TensorError, match="internvl-bridge merge"):
        internvl_bridge.convert_state_dict(weights, "to-hf", config=config)


def test_what_is_there_is_overwritten_only_when_asked(trained: Path, tmp_path: Path):
    internvl_bridge.extract(trained, tmp_path / "parts")
    with pytest.raises(OutputError, match="exists"):
        internvl_bridge.extract(trained, tmp_path / "parts")
    internvl_bridge.extract(trained, tmp_path / "parts", overwrite=True)
    shutil.rmtree(tmp_path / "parts" / "adapter")
    edit_json(trained / "config.json", lambda config: config.update(use_llm_lora=7))
    with pytest.raises(OptionError, match="Add --alpha"):
        internvl_bridge.extract(trained, tmp_path / "other")
    assert not (tmp_path / "other").exists()
