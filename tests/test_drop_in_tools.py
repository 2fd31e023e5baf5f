"""The drop-in scripts keep upstream's contract, and are correct where upstream's are not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import add_modules, copy_custom, edit_json, load_all, rewrite

import internvl_bridge

Custom = Callable[[str], Path]


def run(tool: str, custom: Path, hf: Path, save: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", f"internvl_bridge.tools.{tool}"),
            *("--custom_path", str(custom), "--hf_path", str(hf), "--save_path", str(save)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def twins(custom: Custom, tmp_path: Path) -> tuple[Path, Path]:
    source = custom("qwen3-6b")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    return source, tmp_path / "hf"


def test_hf2custom_takes_config_and_tokenizer_from_the_custom_path(twins, tmp_path: Path):
    custom, hf = twins
    edit_json(custom / "config.json", lambda config: config.update(template="my-template"))
    (custom / "merges.txt").write_text("#version: mine\n")
    modules = add_modules(custom)
    rewrite(hf, lambda tensors: tensors["multi_modal_projector.linear_1.bias"][:1].add_(2))
    done = run("internvl_hf2custom", custom, hf, tmp_path / "saved")
    assert done.returncode == 0, done.stderr
    assert "Missing keys: []" in done.stdout
    assert "Unexpected keys: []" in done.stdout
    assert f"L2 distance to {custom}: 2.0" in done.stdout
    assert "Euclidean norm" in done.stdout
    assert (tmp_path / "saved" / "config.json").read_bytes() == (custom / "config.json").read_bytes()
    assert (tmp_path / "saved" / "merges.txt").read_text() == "#version: mine\n"
    for name in modules:
        assert (tmp_path / "saved" / name).read_bytes() == (custom / name).read_bytes()
    tensors = load_all(tmp_path / "saved")
    assert "vision_model.encoder.layers.0.attn.q_norm.weight" in tensors


def test_custom2hf_needs_no_gpu_and_prints_the_distance(twins, tmp_path: Path):
    custom, hf = twins
    done = run("internvl_custom2hf", custom, hf, tmp_path / "saved")
    assert done.returncode == 0, done.stderr
    assert f"L2 distance to {hf}: 0.000000" in done.stdout
    assert (tmp_path / "saved" / "config.json").read_bytes() == (hf / "config.json").read_bytes()
    assert (tmp_path / "saved" / "tokenizer.json").is_file()


def test_upstreams_labels_mean_what_they_mean_upstream(twins, tmp_path: Path):
    custom, hf = twins
    rewrite(custom, lambda tensors: tensors.pop("mlp1.3.bias"))
    rewrite(custom, lambda tensors: tensors.update({"mlp1.9.bias": torch.zeros(1)}))
    done = run("internvl_hf2custom", custom, hf, tmp_path / "saved")
    assert done.returncode == 1
    assert "Missing keys: ['mlp1.9.bias']" in done.stdout
    assert "Unexpected keys: ['mlp1.3.bias']" in done.stdout


def test_a_reference_without_weights_gives_no_distance(twins, tmp_path: Path):
    custom, hf = twins
    (custom / "model.safetensors").unlink()
    done = run("internvl_hf2custom", custom, hf, tmp_path / "saved")
    assert done.returncode == 0, done.stderr
    assert "no keys or distances to compare" in done.stdout
    assert "L2" not in done.stdout


def test_an_empty_input_is_refused_and_saves_nothing(twins, tmp_path: Path):
    custom, _ = twins
    (tmp_path / "empty").mkdir()
    done = run("internvl_hf2custom", custom, tmp_path / "empty", tmp_path / "saved")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert not (tmp_path / "saved").exists()


def test_a_reference_of_another_size_is_refused(twins, tmp_path: Path):
    _, hf = twins
    other = copy_custom("qwen2-300m", tmp_path / "other")
    done = run("internvl_hf2custom", other, hf, tmp_path / "saved")
    assert done.returncode == 2
    assert "reference" in done.stderr
    assert not (tmp_path / "saved").exists()


def test_missing_flags_are_wrong_usage(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "internvl_bridge.tools.internvl_custom2hf", "--custom_path", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "--hf_path" in done.stderr
