"""There and back: every bit, every file; and the two interpreters of plans agree."""

import json
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from support import DATA, NAMES, add_modules, copy_custom, edit_json, load_all, rewrite, same_bits, shard

import internvl_bridge

Custom = Callable[[str], Path]


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "internvl_bridge.json"}


@pytest.mark.parametrize("name", NAMES)
def test_every_file_of_a_custom_checkpoint_comes_back_byte_for_byte(name: str, custom: Custom, tmp_path: Path):
    source = custom(name)
    there = internvl_bridge.to_hf(source, tmp_path / "hf")
    back = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)
    for report in (there, back):
        assert report.verification is not None
        assert report.verification.identical
        assert report.verification.l2 == 0
        assert len(report.verification.equal) == report.tensors


@pytest.mark.parametrize("name", sorted(path.name for path in (DATA / "hf").iterdir()))
def test_other_hf_spellings_keep_every_bit_on_the_way_home(name: str, tmp_path: Path):
    source = DATA / "hf" / name
    internvl_bridge.to_custom(source, tmp_path / "custom", tied="keep")
    comparison = internvl_bridge.verify(source, tmp_path / "custom")
    assert comparison.identical
    internvl_bridge.repair(source, tmp_path / "hf")
    tensors = load_all(tmp_path / "hf")
    restored = internvl_bridge.convert_state_dict(load_all(tmp_path / "custom"), "to-hf")
    assert restored.keys() == tensors.keys()
    assert all(same_bits(restored[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("name", NAMES)
def test_an_hf_checkpoint_in_safetensors_own_order_comes_back_byte_for_byte(name: str, tmp_path: Path):
    internvl_bridge.to_hf(copy_custom(name, tmp_path / "custom"), tmp_path / "hf", order="name")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    internvl_bridge.to_hf(tmp_path / "back", tmp_path / "again", order="name")
    assert files_of(tmp_path / "again") == files_of(tmp_path / "hf")


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_engine_and_the_disk_engine_make_the_same_file(name: str, tmp_path: Path):
    source = copy_custom(name, tmp_path / "custom")
    config = json.loads((source / "config.json").read_text())
    in_memory = internvl_bridge.convert_state_dict(load_all(source), "to-hf", config=config)
    internvl_bridge.to_hf(source, tmp_path / "hf", order="name")
    contiguous = {key: tensor.contiguous() for key, tensor in in_memory.items()}
    assert (tmp_path / "hf" / "model.safetensors").read_bytes() == save(contiguous, {"format": "pt"})


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_engine_restores_every_tensor(name: str, tmp_path: Path):
    source = copy_custom(name, tmp_path / "custom")
    config = json.loads((source / "config.json").read_text())
    tensors = load_all(source)
    there = internvl_bridge.convert_state_dict(tensors, "to-hf", config=config)
    back = internvl_bridge.convert_state_dict(there, "to-custom", config=config, tied="keep")
    assert back.keys() == tensors.keys()
    assert all(same_bits(back[key], tensors[key]) for key in tensors)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=12)
@given(seed=st.integers(0, 2**32), count=st.integers(2, 5))
@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-6b"])
def test_scattering_over_shards_changes_no_tensor(
    name: str, seed: int, count: int, tmp_path_factory: pytest.TempPathFactory
):
    base = tmp_path_factory.mktemp("scattered")
    whole, scattered = copy_custom(name, base / "whole"), copy_custom(name, base / "scattered")
    internvl_bridge.to_hf(whole, base / "hf")
    internvl_bridge.to_hf(scattered, base / "hf-scattered")
    shard(base / "hf-scattered", lambda key: crc32(f"{seed} {key}".encode()) % count)
    internvl_bridge.to_custom(base / "hf-scattered", base / "back")
    assert internvl_bridge.verify(whole, base / "back").identical


def test_groups_that_lie_in_different_shards_are_gathered(custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    shard(tmp_path / "hf", lambda key: next((n for n, r in enumerate("qkv") if f"attention.{r}_proj" in key), 1))
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert "model-00003-of-00003.safetensors" not in report.files
    assert internvl_bridge.verify(source, tmp_path / "back").identical


@pytest.mark.parametrize("order", ["source", "name"])
def test_resharding_changes_no_tensor_and_respects_the_limit(order, custom: Custom, tmp_path: Path):
    source = custom("qwen3moe-6b")
    report = internvl_bridge.to_hf(source, tmp_path / "hf", max_shard_size=100_000, order=order)
    shards = sorted((tmp_path / "hf").glob("*.safetensors"))
    assert len(shards) > 4
    assert "model.safetensors.index.json" in report.files
    assert internvl_bridge.verify(source, tmp_path / "hf").identical
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == report.bytes
    assert set(index["weight_map"].values()) == {path.name for path in shards}
    sizes = [sum(t.nbytes for t in load_all_of(path).values()) for path in shards]
    assert all(size <= 100_000 for size in sizes)
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back", max_shard_size="5GB")
    assert internvl_bridge.verify(source, tmp_path / "back").identical


def load_all_of(path: Path):
    from safetensors.torch import load_file

    return load_file(path)


def test_dtypes_and_special_values_pass_untouched(custom: Custom, tmp_path: Path):
    import torch

    source = custom("qwen2-6b")
    odd = torch.tensor([float("nan"), -0.0, 0.0, float("inf"), 1e-45], dtype=torch.float32).repeat(7)[:32]

    def change(tensors):
        tensors["vision_model.encoder.layers.0.ls1"] = odd
        tensors["language_model.model.norm.weight"] = tensors["language_model.model.norm.weight"].half()

    rewrite(source, change)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    assert same_bits(load_all(tmp_path / "hf")["vision_tower.encoder.layer.0.lambda_1"], odd)
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)


def test_every_other_small_text_comes_back_byte_for_byte(custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    add_modules(source)
    for name in ("README.md", "LICENSE", "conversation.py", "configuration.json", "eval.yaml", "\u00fc ber.txt"):
        (source / name).write_bytes(b'\xef\xbb\xbf{"\xc3\xbc": [\x00\x1b[2J]}\r\n \t' + name.encode())
    internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)


def test_a_config_changed_between_the_two_conversions_comes_back_changed(custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")

    def rebase(config):
        config["text_config"].update(rope_theta=5e6)
        config["text_config"]["rope_parameters"].update(rope_theta=5e6)

    edit_json(tmp_path / "hf" / "config.json", rebase)
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    before = json.loads((source / "config.json").read_text())
    after = json.loads((tmp_path / "back" / "config.json").read_text())
    assert after["llm_config"].pop("rope_theta") == 5e6
    del before["llm_config"]["rope_theta"]
    assert after == before


def test_metadata_without_a_format_gets_the_one_that_transformers_demands(custom: Custom, tmp_path: Path):
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    source = custom("qwen2-300m")
    save_file(load_file(source / "model.safetensors"), source / "model.safetensors", metadata={"epoch": "3"})
    internvl_bridge.to_hf(source, tmp_path / "hf")
    with safe_open(tmp_path / "hf" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "epoch": "3"}


def test_the_source_is_never_touched(custom: Custom, tmp_path: Path):
    source = custom("qwen3-6b")
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()}
    internvl_bridge.to_hf(source, tmp_path / "hf")
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in source.iterdir()}
    assert after == before


@pytest.mark.parametrize("nothing", [None, {}])
def test_a_quantization_config_that_says_nothing_comes_back(nothing, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config.update(quantization_config=nothing))
    internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)


@pytest.mark.parametrize("top", [True, False, None])
def test_a_tie_flag_at_one_level_comes_back_at_that_level(top, custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m-tied")

    def state(config):
        config.pop("tie_word_embeddings")
        if top is not None:
            config["tie_word_embeddings"] = top

    edit_json(source / "config.json", state)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(source)


def test_what_only_the_hf_config_says_comes_back_from_the_custom_one(tmp_path: Path):
    internvl_bridge.to_hf(copy_custom("qwen2-6b", tmp_path / "custom"), tmp_path / "hf", order="name")
    edit_json(tmp_path / "hf" / "config.json", lambda config: config["vision_config"].update(projection_dropout=0.5))
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    internvl_bridge.to_hf(tmp_path / "back", tmp_path / "again", order="name")
    assert files_of(tmp_path / "again") == files_of(tmp_path / "hf")
