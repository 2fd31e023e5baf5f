"""``internvl-bridge doctor``: what is wrong with a directory, all of it, and nothing that is not."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import DATA, NAMES, copy_custom, edit_json, rewrite
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.diagnosis import weights

Custom = Callable[[str], Path]


def doctor(*arguments: object):
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def wrong(directory: Path, **options) -> list[str]:
    return [
        found.text for found in internvl_bridge.diagnose(directory, **options).findings if found.severity == "wrong"
    ]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong_with_what_a_conversion_takes_and_makes(custom: Custom, tmp_path: Path, name: str):
    source = custom(name)
    assert all("without an output head" in text for text in wrong(source, deep=True))
    internvl_bridge.to_hf(source, tmp_path / "hf")
    found = internvl_bridge.diagnose(tmp_path / "hf", deep=True)
    assert [finding for finding in found.findings if finding.severity == "wrong"] == []
    assert found.not_checked == ()


def test_one_fault_does_not_hide_the_others(custom: Custom):
    source = custom("qwen2-300m")
    rewrite(source, lambda tensors: tensors.pop("mlp1.1.bias"))
    (source / "generation_config.json").write_text('{"a":')
    for name in ("tokenizer.json", "vocab.json"):
        (source / name).unlink(missing_ok=True)
    texts = " ".join(wrong(source))
    for part in ("mlp1.1.bias", "generation_config.json cannot be used", "has neither tokenizer.json"):
        assert part in texts
    (source / "config.json").write_text("")
    assert "config.json cannot be used" in " ".join(wrong(source))


def test_what_can_be_accepted_does_not_hide_the_others(custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config["auto_map"].update(AutoModel="modeling_other.Other"))
    for name in ("adapter_config.json", "adapter_model.bin"):
        (source / name).write_text("{}")
    edit_json(source / "config.json", lambda config: config.update(use_thumbnail=False))
    texts = wrong(source)
    assert [("fork" in text, "adapter" in text, "thumbnail" in text) for text in texts] == [
        (True, False, False),
        (False, True, False),
        (False, False, True),
    ]


def test_the_worst_comes_first_with_the_command_that_mends_it():
    stored = DATA / "hf" / "qwen3-300m-tied@5.4.0"
    result = doctor(stored)
    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines.index("Wrong:") < lines.index("Odd, and perhaps meant:") < lines.index("Not checked:")
    assert f"-> internvl-bridge repair {stored} OUTPUT --tokenizer DIR" in lines
    assert any("Only transformers 5.4 to 5.5, 5.9 and newer loads it" in line for line in lines)


def test_a_repair_mends_what_it_says_it_mends(custom: Custom, tmp_path: Path):
    tokenizer = custom("qwen3-300m-tied")
    internvl_bridge.repair(DATA / "hf" / "qwen3-300m-tied@5.4.0", tmp_path / "repaired", tokenizer=tokenizer)
    assert [text for text in wrong(tmp_path / "repaired") if "eos_token_id" not in text] == []


def test_a_directory_of_a_trainer_leads_to_the_checkpoints_in_it(custom: Custom, tmp_path: Path):
    custom("qwen2-300m").rename(tmp_path / "checkpoint-500")
    (tmp_path / "checkpoint-500" / "optimizer.pt").write_bytes(b"")
    result = doctor(tmp_path)
    assert result.exit_code == 1
    assert f"Give one of them: {tmp_path / 'checkpoint-500'}" in result.stdout
    found = internvl_bridge.diagnose(tmp_path / "checkpoint-500")
    assert found.healthy
    assert any("optimizer.pt" in finding.text for finding in found.findings)


def test_what_is_not_a_directory_is_refused_and_not_diagnosed(tmp_path: Path):
    result = doctor(tmp_path / "nothing")
    assert result.exit_code == 2
    assert "does not exist" in result.stderr


def test_only_deep_reads_the_weights(custom: Custom):
    source = custom("qwen2-300m")
    rewrite(source, lambda tensors: tensors["mlp1.1.weight"][1, 2:3].fill_(float("nan")))
    rewrite(source, lambda tensors: tensors["vision_model.encoder.layers.0.mlp.fc1.weight"].zero_())
    assert wrong(source) == []
    assert f"internvl-bridge doctor {source} --deep" in doctor(source).stdout
    assert wrong(source, deep=True) == ["1 tensors hold values that are not finite numbers: mlp1.1.weight."]
    findings = internvl_bridge.diagnose(source, deep=True).findings
    assert [finding.severity for finding in findings] == sorted((f.severity for f in findings), reverse=True)
    rewrite(source, lambda tensors: tensors["mlp1.3.bias"].zero_())
    [odd] = [f.text for f in internvl_bridge.diagnose(source, deep=True).findings if "zeros" in f.text]
    assert odd.endswith("vision_model.encoder.layers.0.mlp.fc1.weight.")
    assert f"internvl-bridge verify SOURCE {source}" in doctor(source, "--deep").stdout


@pytest.mark.parametrize("value", [float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_every_infinity_is_found(custom: Custom, dtype: torch.dtype, value: float):
    source = custom("qwen2-300m")
    rewrite(source, lambda tensors: tensors.update({key: t.to(dtype) for key, t in tensors.items()}))
    rewrite(source, lambda tensors: tensors["mlp1.3.bias"][-1:].fill_(value))
    assert any("mlp1.3.bias" in text for text in wrong(source, deep=True))


def test_damage_is_found_by_the_checksums(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    weights = tmp_path / "hf" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert wrong(tmp_path / "hf") == []
    [text] = wrong(tmp_path / "hf", deep=True)
    assert text.startswith("model.safetensors: changed since a conversion wrote this directory")


def test_weights_that_no_checksum_proves_are_named(custom: Custom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A conversion that clones and is not verified leaves such weights."""
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    unproved = internvl_bridge.ChecksumReport(str(tmp_path / "hf"), (), (), (), ("model.safetensors",), ())
    monkeypatch.setattr(weights, "verify_checksums", lambda *_, **__: unproved)
    assert any("no checksum shows" in text for text in wrong(tmp_path / "hf", deep=True))


def test_an_adapter_is_examined_with_its_base(tmp_path: Path):
    base = copy_custom("qwen2-300m", tmp_path / "base")
    adapter = tmp_path / "adapter"
    shutil.copytree(
        next(path for path in (DATA / "adapters" / "custom").iterdir() if "qwen2-300m" in path.name), adapter
    )
    edit_json(adapter / "adapter_config.json", lambda config: config.update(base_model_name_or_path="someone/base"))
    alone = internvl_bridge.diagnose(adapter)
    assert alone.kind == "adapter"
    assert alone.healthy
    assert any("Whether it fits" in text for text in alone.not_checked)
    fitting = internvl_bridge.diagnose(adapter, base=base)
    assert not any("Whether it fits" in text for text in fitting.not_checked)
    assert any(text.endswith(f"--deep --base {base}") for text in fitting.not_checked)
    other = copy_custom("qwen3-300m", tmp_path / "other")
    assert not internvl_bridge.diagnose(adapter, base=other).healthy
    assert doctor(adapter, "--base", tmp_path / "nowhere").exit_code == 2
    path = adapter / "adapter_model.safetensors"
    save_file({key.replace("self_attn", "other"): tensor for key, tensor in load_file(path).items()}, path)
    assert not internvl_bridge.diagnose(adapter, base=base).healthy
    (adapter / "adapter_config.json").write_text("[]")
    assert doctor(adapter).exit_code == 1


def test_weights_are_read_after_a_refusal_too(custom: Custom):
    source = custom("qwen2-300m")
    rewrite(source, lambda tensors: tensors.pop("mlp1.1.bias"))
    rewrite(source, lambda tensors: tensors["mlp1.3.bias"][:1].fill_(float("nan")))
    assert any("mlp1.3.bias" in text for text in wrong(source, deep=True))
    assert any("--deep" in text for text in internvl_bridge.diagnose(source).not_checked)


def test_a_record_of_unknown_checksums_does_not_end_the_examination(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    edit_json(tmp_path / "hf" / "internvl_bridge.json", lambda sidecar: sidecar["checksums"].update(algorithm="crc1"))
    assert len(wrong(tmp_path / "hf", deep=True)) >= 1


def test_an_adapter_is_not_blamed_for_what_the_other_format_needs(tmp_path: Path):
    base = copy_custom("qwen2-300m", tmp_path / "base")
    adapter = DATA / "adapters" / "hf" / "qwen2-300m-q-and-v"
    assert internvl_bridge.diagnose(adapter, base=base).findings == ()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda hf: edit_json(hf / "config.json", lambda c: c.update(image_token_id=3)), "image_token_id 3"),
        (lambda hf: (hf / "preprocessor_config.json").unlink(), "no image processor"),
        (lambda hf: (hf / "tokenizer.json").unlink(), "not the files that it is loaded from"),
        (lambda hf: (hf / "internvl_bridge.json").write_text("{"), "internvl_bridge.json cannot be used"),
    ],
)
def test_what_makes_an_hf_checkpoint_useless_is_wrong(custom: Custom, tmp_path: Path, change, part: str):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    change(tmp_path / "hf")
    assert any(part in text for text in wrong(tmp_path / "hf"))


@pytest.mark.parametrize("option", [["--config", "nowhere"], ["--base", "nowhere"], ["--base", "."]])
def test_options_that_cannot_be_used_are_no_fault_of_the_directory(custom: Custom, option: list[str]):
    result = doctor(custom("qwen2-300m"), *option)
    assert (result.exit_code, result.stdout) == (2, "")


def test_a_name_that_looks_like_an_option_can_be_typed(custom: Custom, tmp_path: Path, monkeypatch):
    custom("qwen2-300m").rename(tmp_path / "-dash")
    monkeypatch.chdir(tmp_path)
    assert "internvl-bridge doctor ./-dash --deep" in doctor("./-dash").stdout


def test_the_conversion_into_the_custom_format_may_refuse_what_a_repair_takes(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    (tmp_path / "hf" / "internvl_bridge.json").write_text("{")
    remedies = [finding.remedy or "" for finding in internvl_bridge.diagnose(tmp_path / "hf").findings]
    assert any(remedy.startswith("Remove it to convert without it") for remedy in remedies)


def test_the_commands_have_the_options_that_they_need(custom: Custom, tmp_path: Path):
    """They are typed as they stand."""
    source, alone = custom("qwen2-300m"), tmp_path / "alone"
    alone.mkdir()
    (source / "model.safetensors").rename(alone / "model.safetensors")
    found = internvl_bridge.diagnose(alone, config=source)
    assert found.command == f"internvl-bridge to-hf {alone} OUTPUT --config {source}"
    result = CliRunner().invoke(app, [*found.command.replace("OUTPUT", str(tmp_path / "out")).split()[1:]])
    assert result.exit_code == 0
    for name in ("tokenizer.json", "vocab.json"):
        (source / name).unlink(missing_ok=True)
    [text] = [finding.remedy for finding in internvl_bridge.diagnose(alone, config=source).findings]
    assert text.endswith(f"That is: internvl-bridge to-hf {alone} OUTPUT --config {source} --tokenizer DIR")


def test_a_config_of_the_other_format_is_named(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    [text] = wrong(tmp_path / "hf", config=source)
    assert "is of the custom format, but the weights in" in text


def test_it_writes_nothing(custom: Custom, tmp_path: Path):
    custom("qwen2-300m")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    doctor(tmp_path / "qwen2-300m", "--deep")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
