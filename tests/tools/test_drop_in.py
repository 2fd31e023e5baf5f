"""The drop-in scripts keep upstream's contract, and are correct where upstream's are not."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from state_dicts import MOE, NEEDS_CONFIG, assert_same, config_of, custom_of, hf_of
from support import NAMES, add_modules, copy_custom, edit_json, load_all, rewrite

import internvl_bridge
from internvl_bridge.errors import OptionError, UnknownKeyError
from internvl_bridge.tools import internvl_custom2hf, internvl_hf2custom
from internvl_bridge.tools.internvl_custom2hf import convert_keys_to_hf
from internvl_bridge.tools.internvl_hf2custom import convert_keys_back

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


@pytest.mark.parametrize(
    ("installed", "experts"),
    [
        ("4.52.1", "split"),
        ("4.57.6", "split"),
        ("5.0.0.dev0", "fused"),
        ("5.0.0rc1", "fused"),
        ("5.23.0", "fused"),
        ("10.0", "fused"),
    ],
)
@pytest.mark.parametrize("name", [MOE, "gptoss-300m", "qwen2-300m"])
def test_keys_are_those_that_the_installed_transformers_has_in_memory(
    name: str, installed: str, experts: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(internvl_custom2hf, "version", {"transformers": installed}.__getitem__)
    assert_same(convert_keys_to_hf(custom_of(name)), hf_of(name, "l2", experts))
    assert_same(convert_keys_to_hf(custom_of(name), config_of(name)), hf_of(name, "l2", experts))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_config", [True, False])
def test_the_functions_are_inverses_and_feed_load_state_dict(
    with_config: bool, name: str, custom: Custom, tmp_path: Path
):
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    config = config_of(name) if with_config else None
    tensors = custom_of(name)
    if name in NEEDS_CONFIG and not with_config:
        with pytest.raises(OptionError, match="numbers of heads"):
            convert_keys_to_hf(tensors)
        return
    internvl_bridge.to_hf(custom(name), tmp_path / "hf")
    model = InternVLForConditionalGeneration(InternVLConfig.from_pretrained(tmp_path / "hf"))
    there = convert_keys_to_hf(tensors, config)
    done = model.load_state_dict(there, strict=False)
    tied = name.endswith("-tied")
    assert done.unexpected_keys == []
    assert done.missing_keys == (["lm_head.weight"] if tied else [])
    restored = convert_keys_back(model.state_dict(), config)
    head = restored.pop("language_model.lm_head.weight") if tied else None
    assert head is None or torch.equal(head, restored["language_model.model.embed_tokens.weight"])
    assert_same({key: tensor.to(tensors[key].dtype) for key, tensor in restored.items()}, tensors)
    plain = {key: tensor.to(tensors[key].dtype) for key, tensor in restored.items()}
    assert internvl_custom2hf.compute_l2_distance(tensors, plain) == 0.0
    assert internvl_hf2custom.compute_l2_distance is internvl_custom2hf.compute_l2_distance


def test_the_functions_refuse_what_they_do_not_know():
    for function, tensors in ((convert_keys_to_hf, custom_of(MOE)), (convert_keys_back, hf_of(MOE))):
        with pytest.raises(UnknownKeyError, match=r"language_model\.odd"):
            function({**tensors, "language_model.odd": torch.zeros(1)})
