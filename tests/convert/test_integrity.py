"""A source that carries checksums is compared with them as its bytes pass."""

import json
import os
from pathlib import Path

import pytest
from support import copy_custom, edit_json, load_all, rewrite, said
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import CheckpointError
from internvl_bridge.metadata.sidecar import SIDECAR_FILE

MODELS = ["qwen2-300m", "internlm2-300m", "qwen3moe-6b"]
"""Whose queries are renamed, taken apart in many pieces, and whose experts are many."""
WEIGHTS = "model.safetensors"


def made(tmp_path: Path, model: str, command: str = "to_hf") -> Path:
    """An output, which is the next source."""
    source, home = copy_custom(model, tmp_path / "original"), tmp_path / "source"
    internvl_bridge.to_hf(source, home)
    if command == "to_hf":  # that is what converts it
        internvl_bridge.to_custom(home, tmp_path / "custom")
        return tmp_path / "custom"
    return home


def rot(path: Path, place: int = -1000) -> None:
    """One bit of ``path`` is another one; its size and time are as they were."""
    times, data = path.stat(), bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def key_place(path: Path, key: str) -> int:
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    return start + json.loads(data[8:start])[key]["data_offsets"][0]


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("command", ["to_hf", "to_custom", "repair"])
def test_weights_that_rot_are_refused(command: str, model: str, verify: bool, tmp_path: Path):
    source, output = made(tmp_path, model, command), tmp_path / "output"
    rot(source / WEIGHTS)
    convert = getattr(internvl_bridge, command)
    with pytest.raises(
        CheckpointError, match=r"1 of \d+ tensors do not have the checksum .* The file is damaged"
    ) as caught:
        convert(source, output, verify=verify)
    assert not output.exists()
    assert f"in {source / WEIGHTS}" in str(caught.value)

    report = convert(source, output, verify=verify, accept=["checksums"])
    assert report.kept == (WEIGHTS,)
    assert any("1 of" in warning and "or they are damaged" in warning for warning in report.warnings)
    assert report.warnings == tuple(json.loads((output / SIDECAR_FILE).read_text())["conversion"]["warnings"])


def test_a_query_that_is_taken_apart_is_compared_too(tmp_path: Path):
    source = made(tmp_path, "internlm2-300m", "to_custom")
    key = next(key for key in load_all(source) if "language_model.model.layers.1.self_attn.q_proj" in key)
    rot(source / WEIGHTS, key_place(source / WEIGHTS, key))
    with pytest.raises(CheckpointError, match=f"the first of them {key}"):
        internvl_bridge.to_custom(source, tmp_path / "output")
    # Without a pass that reads back, nothing reads it whole.
    report = internvl_bridge.to_custom(source, tmp_path / "output", verify=False)
    assert any("6 tensors of the source were not compared with its checksums" in note for note in report.notes)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_as_it_was_written_needs_no_word(model: str, tmp_path: Path):
    for command in ("to_custom", "repair"):
        report = getattr(internvl_bridge, command)(made(tmp_path / command, model, command), tmp_path / f"to-{command}")
        assert not [text for text in said(report) if "checksum" in text or "changed since" in text]


def newer(path: Path) -> None:
    rot(path)
    os.utime(path)


def trained(path: Path) -> None:
    """As a trainer does that saves over it."""
    rewrite(path.parent, lambda tensors: tensors["language_model.model.norm.weight"].add_(1))


def trained_before_the_record_was_copied(path: Path) -> None:
    """With a header that is the same, and a sidecar that was copied beside it afterwards."""
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    data[start::16] = bytes(byte ^ 1 for byte in data[start::16])
    path.write_bytes(data)
    os.utime(path.parent / SIDECAR_FILE)


def test_a_record_that_was_copied_beside_trained_weights_may_be_set_aside(tmp_path: Path):
    """Nothing shows whether it is damage: the refusal says what it may be, and what lifts it."""
    source = made(tmp_path, "qwen2-300m", "to_custom")
    trained_before_the_record_was_copied(source / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"73 of 73 tensors .* Or it was trained, .* was copied beside it later"):
        internvl_bridge.to_custom(source, tmp_path / "output")
    report = internvl_bridge.to_custom(source, tmp_path / "output", accept=["checksums"])
    assert any("73 of 73 tensors" in warning and "trained since" in warning for warning in report.warnings)


@pytest.mark.parametrize("change", [newer, trained])
def test_weights_that_were_written_since_are_converted_with_a_warning(change, tmp_path: Path):
    source = made(tmp_path, "qwen2-300m", "to_custom")
    change(source / WEIGHTS)
    result = CliRunner().invoke(app, ["to-custom", str(source), str(tmp_path / "output")])
    assert result.exit_code == 0
    assert "Warning: 1 of 73 tensors do not have the checksums that internvl_bridge.json of the source" in result.stderr


def test_small_files_that_changed_win_with_a_note(tmp_path: Path):
    source = made(tmp_path, "qwen2-300m", "to_custom")
    edit_json(source / "generation_config.json", lambda values: values.update(temperature=0.5))
    report = internvl_bridge.to_custom(source, tmp_path / "output")
    assert any(note.startswith("generation_config.json changed since a conversion wrote") for note in report.notes)


def test_a_record_that_was_changed_is_not_used(tmp_path: Path):
    source = made(tmp_path, "qwen2-300m", "to_custom")
    rot(source / WEIGHTS)
    edit_json(source / SIDECAR_FILE, lambda values: values["checksums"].update(files={}))
    report = internvl_bridge.to_custom(source, tmp_path / "output")
    assert any(warning.startswith("internvl_bridge.json was changed since") for warning in report.warnings)
    assert internvl_bridge.verify_checksums(source).changed == (SIDECAR_FILE,)


def test_a_record_is_still_used_after_a_repair(tmp_path: Path):
    source = made(tmp_path, "qwen2-300m", "to_custom")
    internvl_bridge.repair(source, tmp_path / "repaired", max_shard_size="90KB", layout="l2")
    [*_, victim] = sorted((tmp_path / "repaired").glob("*.safetensors"))
    rot(victim, -1)
    with pytest.raises(CheckpointError, match=f"in {victim}"):
        internvl_bridge.to_custom(tmp_path / "repaired", tmp_path / "output")
