"""Adapters on disk: converted both ways, compared, inspected and refused, as a user meets them."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import P, lora_config
from safetensors.torch import load_file, save_file
from support import DATA, edit_json, files_of, load_all
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.convert import run_adapter
from internvl_bridge.errors import (
    CheckpointError,
    ContradictionError,
    DifferenceError,
    OptionError,
    OutputError,
    UnknownKeyError,
    UnsupportedModelError,
)
from internvl_bridge.storage.local_files import LocalFiles

Custom = Callable[[str], Path]
FACTORS = "adapter_model.safetensors"
EXACT = sorted(path for path in (DATA / "adapters").glob("*/*-*/") if path.parent.name in {"custom", "hf"})


def base_name(adapter: Path) -> str:
    named: str = json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"]
    return named.removesuffix("-hf")


def convert(source: Path, output: Path, base: Path, **options: Any) -> internvl_bridge.ConversionReport:
    """To the other format."""
    to = internvl_bridge.to_hf if internvl_bridge.inspect_adapter(source, base=base).format == "custom" else None
    return (to or internvl_bridge.to_custom)(source, output, base=base, **options)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    return shutil.copytree(DATA / "adapters" / "hf" / "qwen2-300m-all-linear", tmp_path / "adapter")


@pytest.mark.parametrize("source", EXACT, ids=lambda path: f"{path.parent.name} {path.name}")
@pytest.mark.parametrize("base_format", ["custom", "hf"])
def test_there_and_back_is_byte_for_byte_the_same(source: Path, base_format: str, custom: Custom, tmp_path: Path):
    base = custom(base_name(source))
    if base_format == "hf":
        internvl_bridge.to_hf(base, tmp_path / "base-hf")
        base = tmp_path / "base-hf"
    there = convert(source, tmp_path / "there", base)
    assert there.ok
    assert any("still names" in note for note in there.notes)
    assert there.tensors == len(load_file(tmp_path / "there" / "adapter_model.safetensors"))
    convert(tmp_path / "there", tmp_path / "back", base)
    before, after = files_of(source), files_of(tmp_path / "back")
    assert after["adapter_config.json"] == before["adapter_config.json"]
    ours, theirs = (
        load_file(source / "adapter_model.safetensors"),
        load_file(tmp_path / "back" / "adapter_model.safetensors"),
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for one, other in ((source, tmp_path / "there"), (tmp_path / "there", source), (tmp_path / "back", source)):
        assert internvl_bridge.verify_adapters(one, other, base=base).identical
    assert internvl_bridge.verify_checksums(tmp_path / "there").intact


def test_what_was_trained_since_is_converted_and_not_the_sidecar(adapter: Path, custom: Custom, tmp_path: Path):
    base = custom("qwen2-300m")
    convert(adapter, tmp_path / "custom", base)
    path = tmp_path / "custom" / "adapter_model.safetensors"
    trained = {key: tensor + 1 for key, tensor in load_file(path).items()}
    save_file(trained, path)
    convert(tmp_path / "custom", tmp_path / "back", base)
    found = internvl_bridge.verify_adapters(tmp_path / "custom", tmp_path / "back", base=base)
    assert found.identical
    compared = internvl_bridge.verify_adapters(adapter, tmp_path / "back", base=base)
    assert not compared.identical
    assert compared.relative > 1
    config = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert set(config["rank_pattern"].values()) == {12}


def test_a_sidecar_resolves_what_zeros_leave_open(adapter: Path, custom: Custom, tmp_path: Path):
    base, path = custom("qwen2-300m"), adapter / "adapter_model.safetensors"
    fresh = {key: torch.zeros_like(t) if "lora_B" in key else t for key, t in load_file(path).items()}
    save_file(fresh, path)
    convert(adapter, tmp_path / "custom", base)
    convert(tmp_path / "custom", tmp_path / "back", base)
    assert load_file(tmp_path / "back" / "adapter_model.safetensors").keys() == fresh.keys()
    assert (tmp_path / "back" / "adapter_config.json").read_bytes() == (adapter / "adapter_config.json").read_bytes()
    (tmp_path / "custom" / "internvl_bridge.json").unlink()
    convert(tmp_path / "custom", tmp_path / "plain", base)
    config = json.loads((tmp_path / "plain" / "adapter_config.json").read_text())
    assert set(config["rank_pattern"].values()) == {12}
    assert internvl_bridge.verify_adapters(adapter, tmp_path / "plain", base=base).relative == 0


def test_a_sidecar_that_was_changed_restores_no_config(adapter: Path, custom: Custom, tmp_path: Path):
    base = custom("qwen2-300m")
    convert(adapter, tmp_path / "custom", base)

    def forge(sidecar: dict[str, Any]) -> None:
        config = json.loads(sidecar["adapter"]["config"])
        sidecar["adapter"]["config"] = json.dumps({**config, "fan_in_fan_out": True})

    edit_json(tmp_path / "custom" / "internvl_bridge.json", forge)
    convert(tmp_path / "custom", tmp_path / "back", base)
    made = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert (made["fan_in_fan_out"], len(made["target_modules"])) == (False, 28)


def test_factors_that_are_written_wrongly_are_not_published(
    adapter: Path, custom: Custom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    base, write = custom("qwen2-300m"), run_adapter.write_pieces

    def wrong(path: Path, pieces: Iterable[bytes], files: LocalFiles) -> None:
        *others, last = pieces
        write(path, [*others, bytes(len(last))], files)

    monkeypatch.setattr(run_adapter, "write_pieces", wrong)
    with pytest.raises(DifferenceError, match=r"adapter_model\.safetensors is not what was to be written"):
        internvl_bridge.to_custom(adapter, tmp_path / "custom", base=base)
    assert not (tmp_path / "custom").exists()


@pytest.mark.parametrize("differs", ["scaling", "indices", "vectors"])
def test_what_only_scalings_indices_or_vectors_show_is_a_difference(differs: str, custom: Custom, tmp_path: Path):
    base, tokens, head = custom("qwen2-300m"), "language_model.model.embed_tokens", "language_model.lm_head"
    rows = load_all(base)[f"{tokens}.weight"].shape[0]
    factors = {
        f"{P}{tokens}.lora_embedding_A": torch.ones(2, rows),
        f"{P}{tokens}.lora_embedding_B": torch.ones(64, 2),
        f"{P}{head}.lora_A.weight": torch.ones(2, 64),
        f"{P}{head}.lora_B.weight": torch.ones(rows, 2),
    }
    if differs == "indices":
        factors = {f"{P}{tokens}.token_adapter.trainable_tokens_delta": torch.ones(2, 64)}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        is_other = name == "two"
        config = lora_config(trainable_token_indices=[5, 6] if is_other and differs == "indices" else [1, 2])
        config["lora_alpha"] = 400 if is_other and differs == "scaling" else 4
        vector = {f"{P}{head}.lora_magnitude_vector": torch.ones(rows)} if is_other and differs == "vectors" else {}
        save_file({**factors, **vector}, tmp_path / name / FACTORS)
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
    found = internvl_bridge.verify_adapters(tmp_path / "one", tmp_path / "two", base=base)
    assert not found.identical
    assert internvl_bridge.verify_adapters(tmp_path / "one", tmp_path / "one", base=base).identical
    if differs != "indices":
        assert found.relative > 1


def test_files_beside_it_go_with_it_and_others_are_named(adapter: Path, custom: Custom, tmp_path: Path):
    (adapter / "tokenizer_config.json").write_text("{}")
    (adapter / "README.md").write_text("mine")
    shutil.copytree(adapter, adapter / "other")
    report = convert(adapter, tmp_path / "custom", custom("qwen2-300m"), target_base="/data/base")
    assert report.left_behind == ("README.md", "other")
    assert any("other adapters, too: other" in note for note in report.notes)
    assert (tmp_path / "custom" / "tokenizer_config.json").read_text() == "{}"
    config = json.loads((tmp_path / "custom" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "/data/base"
    assert any("--max-lora-rank" in warning for warning in report.warnings)


def test_the_base_is_the_directory_that_the_config_names(adapter: Path, custom: Custom, tmp_path: Path):
    with pytest.raises(OptionError, match=r"names the base model 'qwen2-300m-hf', .*--base BASE"):
        internvl_bridge.to_custom(adapter, tmp_path / "custom")
    assert internvl_bridge.inspect_adapter(adapter).spelling is None
    base = custom("qwen2-300m")
    for path in base.glob("*.safetensors"):
        path.unlink()
    edit_json(adapter / "adapter_config.json", lambda config: config.update(base_model_name_or_path=str(base)))
    assert internvl_bridge.to_custom(adapter, tmp_path / "custom").ok  # its config.json is enough
    assert internvl_bridge.inspect_adapter(adapter).family == "Qwen2"


@pytest.mark.parametrize("keeps_sidecar", [True, False])
def test_an_hf_base_of_several_custom_classes_is_told(keeps_sidecar: bool, custom: Custom, tmp_path: Path):
    base, source = custom("internlm2-300m"), DATA / "adapters" / "samples" / "internlm2-300m-all_linear"
    internvl_bridge.to_hf(base, tmp_path / "base-hf")
    internvl_bridge.to_hf(source, tmp_path / "adapter", base=base)
    if not keeps_sidecar:
        (tmp_path / "base-hf" / "internvl_bridge.json").unlink()
    report = internvl_bridge.to_custom(tmp_path / "adapter", tmp_path / "custom", base=tmp_path / "base-hf")
    assert any("It is taken for Llama" in warning for warning in report.warnings) is not keeps_sidecar
    if keeps_sidecar:
        assert internvl_bridge.verify_adapters(tmp_path / "custom", source, base=base).identical


def test_pickled_factors_are_read(adapter: Path, custom: Custom, tmp_path: Path):
    base = custom("qwen2-300m")
    convert(adapter, tmp_path / "one", base)
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    convert(adapter, tmp_path / "two", base)
    assert (
        files_of(tmp_path / "one")["adapter_model.safetensors"]
        == files_of(tmp_path / "two")["adapter_model.safetensors"]
    )
    (adapter / "adapter_model.bin").unlink()
    with pytest.raises(CheckpointError, match=r"holds neither adapter_model\.safetensors nor adapter_model\.bin"):
        convert(adapter, tmp_path / "three", base)


def test_repair_writes_the_keys_that_peft_loads(custom: Custom, tmp_path: Path):
    source, base = DATA / "adapters" / "samples" / "tf_add_adapter", custom("qwen2-300m")
    report = internvl_bridge.repair(source, tmp_path / "repaired", base=base)
    assert not any("still names" in note for note in report.notes)
    keys = load_file(tmp_path / "repaired" / "adapter_model.safetensors").keys()
    assert all(key.startswith(f"{P}model.") for key in keys)
    assert internvl_bridge.verify_adapters(source, tmp_path / "repaired", base=base).identical


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            lambda adapter: (adapter / "vit.safetensors").touch(),
            UnsupportedModelError,
            "swift export --merge_lora true",
        ),
        (
            lambda adapter: edit_json(adapter / "adapter_config.json", lambda c: c.update(peft_type="IA3")),
            UnsupportedModelError,
            "has peft_type 'IA3'",
        ),
        (
            lambda adapter: edit_json(adapter / "adapter_config.json", lambda c: c.update(r=8)),
            ContradictionError,
            "rank 8, but its tensors have rank 4",
        ),
        (
            lambda adapter: (adapter / "adapter_model.safetensors").write_bytes(b"12345678"),
            CheckpointError,
            "adapter_model.safetensors",
        ),
        (
            lambda adapter: save_file({"a.lora_A.weight": torch.ones(1).to(torch.int8)}, adapter / FACTORS),
            UnsupportedModelError,
            "has dtype I8, which factors do not have",
        ),
        (
            lambda adapter: save_file({"v_head.weight": torch.ones(1)}, adapter / "adapter_model.safetensors"),
            UnknownKeyError,
            "No tensor of the adapter fits the model",
        ),
    ],
)
def test_what_cannot_be_converted_leaves_no_output(
    change: Callable[[Path], object], error: type[Exception], words: str, adapter: Path, custom: Custom, tmp_path: Path
):
    change(adapter)
    with pytest.raises(error, match=words):
        internvl_bridge.to_custom(adapter, tmp_path / "output", base=custom("qwen2-300m"))
    assert not (tmp_path / "output").exists()
    assert not (tmp_path / "output.partial").exists()


def test_options_of_the_other_kind_are_refused(adapter: Path, custom: Custom, tmp_path: Path):
    base = custom("qwen2-300m")
    with pytest.raises(OptionError, match=r"max_shard_size is a choice for whole checkpoints only.*--max-shard-size"):
        internvl_bridge.to_custom(adapter, tmp_path / "output", base=base, max_shard_size="5GB")
    with pytest.raises(OptionError, match="base is a choice for adapters only"):
        internvl_bridge.to_hf(base, tmp_path / "output", base=base)
    with pytest.raises(OptionError, match="not a choice for transformers"):
        internvl_bridge.to_custom(adapter, tmp_path / "output", base=base, transformers=6)  # type: ignore[arg-type]


def test_outputs_are_kept_apart_and_replaced_only_if_that_is_asked_for(adapter: Path, custom: Custom, tmp_path: Path):
    base = custom("qwen2-300m")
    with pytest.raises(OutputError, match="lies inside"):
        internvl_bridge.to_custom(adapter, base / "output", base=base)
    internvl_bridge.to_custom(adapter, tmp_path / "output", base=base)
    with pytest.raises(OutputError, match="--overwrite"):
        internvl_bridge.to_custom(adapter, tmp_path / "output", base=base)
    internvl_bridge.to_custom(adapter, tmp_path / "output", base=base, overwrite=True, verify=False)


def test_the_commands_say_what_they_find_and_do(adapter: Path, custom: Custom, tmp_path: Path):
    base = custom("qwen2-300m")

    def said(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result.output

    assert "yes (Qwen2)" in said("inspect", adapter, "--base", base)
    assert "no base model is known; add --base" in said("inspect", adapter)
    assert "Would convert" in said("plan", adapter, "--base", base)
    assert "Would convert" in said("to-custom", adapter, tmp_path / "output", "--base", base, "--dry-run")
    assert not (tmp_path / "output").exists()
    assert "an adapter, LORA, rank 4, 28 modules" in said("to-custom", adapter, tmp_path / "output", "--base", base)
    assert "Identical: 28 modules" in said("verify", tmp_path / "output", adapter, "--base", base)
    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    edit_json(other / "adapter_config.json", lambda config: config.update(lora_alpha=16))
    found = said("verify", adapter, other, "--base", base, code=1)
    assert "relative L2 distance of their changes 1;" in found
    assert "and 18 more; --verbose lists them all" in found
    refused = said("to-hf", adapter, tmp_path / "x", "--base", base, code=2)
    assert "is an adapter of a model in the hf format. Use 'internvl-bridge to-custom'" in refused
    refused = said("verify", adapter, base, code=2)
    assert f"internvl-bridge to-hf {adapter} OUTPUT --base BASE, or to-custom" in refused


def test_what_a_pickled_adapter_states_of_its_bytes_is_checked(adapter: Path, custom: Custom, tmp_path: Path):
    factors = load_file(adapter / FACTORS)
    (adapter / FACTORS).unlink()
    path = adapter / "adapter_model.bin"
    torch.save(factors, path)
    data = bytearray(path.read_bytes())
    first = next(iter(factors.values()))
    data[data.index(first.contiguous().view(torch.uint8).numpy().tobytes()) + 5] ^= 1
    path.write_bytes(data)
    base = custom("qwen2-300m")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin is damaged"):
        internvl_bridge.to_custom(adapter, tmp_path / "converted", base=base)
    assert not (tmp_path / "converted").exists()
    assert internvl_bridge.to_custom(adapter, tmp_path / "converted", base=base, accept=["checksums"]).ok
