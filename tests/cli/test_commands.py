"""``internvl-bridge plan``: what a conversion would do and cost, from headers alone."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, edit_json
from typer.testing import CliRunner, Result

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.convert import disk_budget as budget

Custom = Callable[[str], Path]
SYNTHETIC = ROOT / "examples" / "synthetic.py"


def plan(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["plan", *map(str, arguments)])


def planned(*arguments: object) -> dict:
    result = plan(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["result"]


def test_the_direction_is_that_of_the_source(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    assert planned(source)["format"] == "hf"
    internvl_bridge.to_hf(source, tmp_path / "hf")
    assert planned(tmp_path / "hf")["format"] == "custom"
    assert planned(tmp_path / "hf", "--repair")["format"] == "hf"


def test_a_custom_checkpoint_cannot_be_repaired(custom: Custom):
    result = plan(custom("qwen2-300m"), "--repair")
    assert result.exit_code == 2
    assert "Use 'internvl-bridge to-hf'" in result.stderr


@pytest.mark.parametrize(
    ("option", "value", "applies"), [("layout", "l2", "hf"), ("experts", "fused", "hf"), ("tied", "keep", "custom")]
)
def test_an_option_of_the_other_direction_is_refused(custom: Custom, tmp_path: Path, option, value, applies):
    source = custom("qwen3moe-6b")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    here, there = (source, tmp_path / "hf") if applies == "hf" else (tmp_path / "hf", source)
    assert plan(here, f"--{option}", value).exit_code == 0
    result = plan(there, f"--{option}", value)
    assert result.exit_code == 2
    assert f"{option} is a choice for outputs in the {applies} format only" in result.stderr
    assert f"Leave out --{option}." in result.stderr


def test_the_output_is_planned_beside_the_source_and_nothing_is_written(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    assert planned(source)["output"] == f"{source}-hf"
    assert planned(source, tmp_path / "deep" / "output")["output"] == str(tmp_path / "deep" / "output")
    assert [path.name for path in tmp_path.iterdir()] == ["qwen2-300m"]


def test_it_is_what_the_dry_run_of_the_conversion_says(custom: Custom, tmp_path: Path):
    source, output = custom("qwen3moe-6b"), tmp_path / "output"
    options = [
        "--accept",
        "small-shards",
        "--max-shard-size",
        "100KB",
        "--layout",
        "l2",
        "--experts",
        "fused",
        "--no-verify",
    ]
    dry = CliRunner().invoke(app, ["to-hf", str(source), str(output), "--dry-run", "--json", *options])
    ours, theirs = planned(source, output, *options), json.loads(dry.stdout)["result"]
    for said in (ours, theirs):
        said["budget"].pop("free")
    assert ours == theirs
    assert len(ours["weights"]) > 1
    assert ours["budget"]["verified"] == 0


def test_the_sizes_are_those_of_the_files_that_are_then_written(custom: Custom, tmp_path: Path):
    source, output = custom("qwen3-300m"), tmp_path / "output"
    cost = planned(source, output, "--accept", "small-shards", "--max-shard-size", "100KB")["budget"]
    internvl_bridge.to_hf(source, output, max_shard_size="100KB")
    weights = sum(path.stat().st_size for path in output.glob("*.safetensors"))
    others = sum(path.stat().st_size for path in output.iterdir()) - weights
    assert cost["verified"] == weights
    assert weights + others <= cost["written"] + cost["cloned"] <= weights + 2 * others  # JSON is estimated
    assert cost["room"] == cost["written"]
    assert cost["kept"] == 0


def test_what_does_not_fit_is_planned_and_refused(custom: Custom, tmp_path: Path, monkeypatch):
    source = custom("qwen2-300m")
    monkeypatch.setattr(budget, "free_bytes", lambda _: 1000)
    result = plan(source, tmp_path / "output")
    assert result.exit_code == 2
    assert "Would write:" in result.stdout
    assert "and 1000 B are free" in result.stdout
    assert "but its file system has only 1000 B free. Make room" in result.stderr


@pytest.mark.exhaustive
def test_half_a_terabyte_is_planned_from_its_headers(tmp_path: Path):
    """The shapes and the depth of InternVL3_5-241B-A28B, as sparse files."""
    source = tmp_path / "241b"
    subprocess.run([sys.executable, SYNTHETIC, source, "--preset", "241b"], check=True)
    result = plan(source, tmp_path / "output", "--json")
    found = json.loads(result.stdout)["result"]
    assert found["budget"]["verified"] > 480e9
    assert found["budget"]["written"] + found["budget"]["cloned"] > 480e9
    assert len(found["weights"]) == 97
    assert result.exit_code == (0 if found["budget"]["fits"] else 2)


def test_a_config_that_is_none_is_refused(custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config.update(model_type="other"))
    result = plan(source)
    assert result.exit_code == 2
    assert "config.json" in result.stderr


def test_verify_takes_another_directory_or_checksums(custom: Custom):
    source = str(custom("qwen2-300m"))
    for arguments in ([source], [source, source, "--checksums"]):
        result = CliRunner().invoke(app, ["verify", *arguments])
        assert result.exit_code == 2
        assert "give either RIGHT or --checksums" in result.stderr


@pytest.mark.parametrize("workers", ["0", "-1", "257"])
def test_a_number_of_workers_that_is_none(custom: Custom, tmp_path: Path, workers: str):
    result = CliRunner().invoke(
        app, ["to-hf", str(custom("qwen2-300m")), str(tmp_path / "output"), "--workers", workers]
    )
    assert result.exit_code == 2
    assert "is not a number of workers. Use 1 to 256" in result.stderr
