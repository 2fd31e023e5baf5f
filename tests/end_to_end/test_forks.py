"""Forks are converted by nobody in silence, and by who says so."""

import json
from pathlib import Path

import pytest
from support import copy_custom, edit_json
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import UnsupportedModelError

MODULE = "modeling_internvl_chat_hico2.InternVLChatModel"


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    directory = copy_custom("qwen2-300m", tmp_path / "fork")
    edit_json(directory / "config.json", lambda config: config["auto_map"].update(AutoModel=MODULE))
    return directory


def test_a_fork_is_converted_by_who_accepts_it(fork: Path, tmp_path: Path):
    output = tmp_path / "output"
    command = ["to-hf", str(fork), str(output)]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, output.exists()) == (2, False)
    assert f"{fork}/config.json is that of a fork: auto_map has '{MODULE}' for AutoModel." in result.stderr
    result = CliRunner().invoke(app, [*command, "--accept", "fork"])
    assert result.exit_code == 0
    assert "fork" in result.stdout
    sidecar = json.loads((output / "internvl_bridge.json").read_text())
    assert sidecar["conversion"]["accepted"] == ["fork"]


def test_nobody_is_told_that_a_fork_is_convertible(fork: Path):
    assert "is that of a fork" in (internvl_bridge.inspect(fork).refusal or "")
    with pytest.raises(UnsupportedModelError, match="is that of a fork"):
        internvl_bridge.load_pretrained(fork)
    assert type(internvl_bridge.load_pretrained(fork, accept={"fork"})).__name__ == "InternVLForConditionalGeneration"


def test_the_same_from_hf(tmp_path: Path):
    source, hf = copy_custom("qwen2-300m", tmp_path / "source"), tmp_path / "hf"
    internvl_bridge.to_hf(source, hf)
    edit_json(hf / "config.json", lambda config: config.update(auto_map={"AutoModel": "modeling_mine.Mine"}))
    with pytest.raises(UnsupportedModelError, match=r"auto_map has 'modeling_mine\.Mine' for AutoModel"):
        internvl_bridge.to_custom(hf, tmp_path / "output")
    with pytest.raises(UnsupportedModelError, match="is that of a fork"):
        internvl_bridge.repair(hf, tmp_path / "output")
    internvl_bridge.to_custom(hf, tmp_path / "output", accept={"fork"})


def test_a_reference_that_is_a_fork_is_refused(fork: Path, tmp_path: Path):
    """The output would have its code."""
    internvl_bridge.to_hf(fork, tmp_path / "hf", accept={"fork"})
    with pytest.raises(UnsupportedModelError, match=f"{fork}/config.json is that of a fork"):
        internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "output", reference=fork)


def test_a_field_that_nobody_knows_is_a_warning(tmp_path: Path):
    source = copy_custom("qwen2-300m", tmp_path / "source")
    edit_json(source / "config.json", lambda config: config.update(num_tome_tokens=64))
    report = internvl_bridge.to_hf(source, tmp_path / "output")
    assert any("fields that InternVL does not know: num_tome_tokens." in warning for warning in report.warnings)
