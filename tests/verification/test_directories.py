"""Verification finds every difference, says where it is, and never passes one over."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import copy_custom, load_all, rewrite

import internvl_bridge
from internvl_bridge.storage import shard_jobs

Custom = Callable[[str], Path]
KEY = "vision_tower.encoder.layer.1.attention.k_proj.weight"


@pytest.fixture
def pair(custom: Custom, tmp_path: Path) -> tuple[Path, Path]:
    """A custom checkpoint and its HF twin."""
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    return source, tmp_path / "hf"


def test_twins_are_identical_in_both_orders(pair):
    assert internvl_bridge.verify(*pair).identical
    assert internvl_bridge.verify(*reversed(pair)).identical


def test_the_distance_is_the_euclidean_norm_over_all_tensors(pair):
    source, hf = pair
    rewrite(hf, lambda t: [t[KEY].view(-1)[5:6].add_(3), t["multi_modal_projector.linear_1.bias"][:4].add_(2)])
    comparison = internvl_bridge.verify(source, hf)
    changed = load_all(hf)
    original = internvl_bridge.convert_state_dict(load_all(source), "to-hf")
    squares = sum(((changed[k].double() - original[k].double()) ** 2).sum().item() for k in original)
    assert comparison.l2 == pytest.approx(math.sqrt(squares), rel=1e-12)
    assert not comparison.identical
    assert {d.key: d.element for d in comparison.differences} == {
        KEY: 5,
        "multi_modal_projector.linear_1.bias": 0,
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data())
def test_any_single_flipped_bit_is_found_and_located(data, tmp_path_factory: pytest.TempPathFactory):
    base = tmp_path_factory.mktemp("flip")
    source = copy_custom("internlm2-300m", base / "custom")
    internvl_bridge.to_hf(source, base / "hf")
    key = data.draw(st.sampled_from(sorted(load_all(base / "hf"))))
    size = load_all(base / "hf")[key].nbytes
    position, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 7))

    def flip(tensors):
        raw = tensors[key].view(-1).view(torch.uint8)
        raw[position] ^= 1 << bit

    rewrite(base / "hf", flip)
    comparison = internvl_bridge.verify(source, base / "hf")
    assert [(d.key, d.element) for d in comparison.differences] == [(key, position // 2)]
    assert not comparison.identical


def test_a_nan_is_a_difference_and_makes_the_distance_nan(pair):
    source, hf = pair
    rewrite(hf, lambda t: t[KEY].view(-1)[7:8].fill_(float("nan")))
    comparison = internvl_bridge.verify(source, hf)
    assert [d.element for d in comparison.differences] == [7]
    assert math.isnan(comparison.l2)
    assert not comparison.identical


def test_equal_values_in_different_bits_are_a_difference_of_distance_zero(pair):
    source, hf = pair
    for directory, key, zero in (
        (source, "mlp1.0.bias", 0.0),
        (hf, "multi_modal_projector.layer_norm.bias", -0.0),
    ):
        rewrite(directory, lambda t, key=key, zero=zero: t[key][3:4].fill_(zero))
    comparison = internvl_bridge.verify(source, hf)
    assert [(d.key, d.element, d.l2) for d in comparison.differences] == [
        ("multi_modal_projector.layer_norm.bias", 3, 0.0)
    ]
    assert not comparison.identical


def test_a_nan_that_both_have_is_no_difference(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    rewrite(source, lambda t: t["mlp1.1.weight"].fill_(float("nan")))
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert report.verification is not None
    assert report.verification.identical


def test_missing_unexpected_and_mismatched_tensors_are_all_named(pair):
    source, hf = pair

    def spoil(tensors):
        tensors["vision_tower.stray"] = torch.zeros(3)
        del tensors["language_model.model.norm.weight"]
        tensors["language_model.lm_head.weight"] = tensors["language_model.lm_head.weight"].float()
        tensors["multi_modal_projector.linear_2.bias"] = torch.zeros(5, dtype=torch.bfloat16)

    rewrite(hf, spoil)
    comparison = internvl_bridge.verify(source, hf)
    assert comparison.missing == ("language_model.model.norm.weight",)
    assert comparison.unexpected == ("vision_tower.stray",)
    assert comparison.mismatched["language_model.lm_head.weight"].startswith("BF16 [600, 64] was expected, F32")
    assert comparison.mismatched["multi_modal_projector.linear_2.bias"].endswith("BF16 [5] found")
    assert not comparison.complete
    assert not comparison.identical


def test_directories_without_config_are_compared_key_by_key(pair, tmp_path: Path):
    source, _ = pair
    twin = copy_custom("qwen2-300m", tmp_path / "twin")
    (twin / "config.json").unlink()
    assert internvl_bridge.verify(source, twin).identical


def test_hf_checkpoints_in_different_spellings_can_be_compared(pair, tmp_path: Path):
    from safetensors.torch import save_file
    from support import DATA

    _, hf = pair
    stored = DATA / "hf" / "qwen2-300m@state-dict"
    assert internvl_bridge.verify(hf, stored).identical
    assert internvl_bridge.verify(stored, hf).identical
    tensors = load_all(stored)
    tensors["model.language_model.norm.weight"] += 1
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((stored / "config.json").read_bytes())
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    assert [d.key for d in internvl_bridge.verify(hf, other).differences] == ["model.language_model.norm.weight"]


def test_a_reference_that_differs_in_values_is_information(pair, tmp_path: Path):
    source, hf = pair
    rewrite(hf, lambda t: t[KEY].add_(1))
    report = internvl_bridge.to_hf(source, tmp_path / "again", reference=hf)
    assert report.reference is not None
    assert [d.key for d in report.reference.differences] == [KEY]
    assert report.reference.l2 > 0
    assert report.ok


def test_a_reference_with_other_keys_is_a_failure(pair, tmp_path: Path):
    source, hf = pair
    rewrite(hf, lambda t: t.pop("multi_modal_projector.linear_2.bias"))
    report = internvl_bridge.to_hf(source, tmp_path / "again", reference=hf)
    assert report.reference is not None
    assert report.reference.missing == ("multi_modal_projector.linear_2.bias",)
    assert not report.ok


def test_an_output_that_is_not_what_was_read_is_never_published(custom: Custom, tmp_path: Path, monkeypatch):
    source = custom("qwen2-300m")
    write = shard_jobs.write_file

    def corrupting(path, *arguments):
        written = write(path, *arguments)
        with path.open("r+b") as file:
            file.seek(-1, 2)
            last = file.read(1)
            file.seek(-1, 2)
            file.write(bytes([last[0] ^ 1]))
        return written

    monkeypatch.setattr(shard_jobs, "write_file", corrupting)
    with pytest.raises(internvl_bridge.DifferenceError, match="is not what was read"):
        internvl_bridge.to_hf(source, tmp_path / "hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen2-300m"]
    report = internvl_bridge.to_hf(source, tmp_path / "hf", verify=False)
    assert report.verification is None
