"""What serving engines find in an output, and what the report and inspect tell about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import DATA, edit_json, said

import internvl_bridge

Custom = Callable[[str], Path]

CLASSES = {
    "qwen2-300m": "Qwen2ForCausalLM",
    "qwen3moe-6b": "Qwen3MoeForCausalLM",
    "internlm2-300m": "LlamaForCausalLM",
    "gptoss-300m": "GptOssForCausalLM",
    "phi3-300m": "Phi3ForCausalLM",
}


def config_of(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return found


@pytest.mark.parametrize("name", CLASSES)
def test_an_hf_output_has_the_fields_that_engines_read(name: str, custom: Custom, tmp_path: Path):
    source = custom(name)
    edit_json(source / "config.json", lambda c: c.update(max_dynamic_patch=7, dynamic_image_size=True))
    internvl_bridge.to_hf(source, tmp_path / "hf")
    config = config_of(tmp_path / "hf")
    assert config["text_config"]["architectures"] == [CLASSES[name]]
    assert (config["min_dynamic_patch"], config["max_dynamic_patch"], config["use_thumbnail"]) == (1, 7, True)
    assert "architectures" not in config["vision_config"]
    assert "pad_token_id" in json.loads((tmp_path / "hf" / "generation_config.json").read_text())


@pytest.mark.parametrize("name", ["qwen2-300m@state-dict", "qwen3moe-6b@5.0.0"])
def test_repair_adds_them_once(name: str, tmp_path: Path):
    internvl_bridge.repair(DATA / "hf" / name, tmp_path / "once", tokenizer=DATA / "tokenizers" / "bpe")
    internvl_bridge.repair(tmp_path / "once", tmp_path / "twice")
    config = config_of(tmp_path / "once")
    assert config["text_config"]["architectures"][0].endswith("ForCausalLM")
    assert {"min_dynamic_patch", "max_dynamic_patch", "use_thumbnail"} <= config.keys()
    assert (tmp_path / "twice" / "config.json").read_bytes() == (tmp_path / "once" / "config.json").read_bytes()


@pytest.mark.parametrize("stated", [["LlamaForCausalLM"], [None], "Qwen2ForCausalLM"])
def test_repair_names_the_class_that_the_type_has(stated: Any, custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    edit_json(tmp_path / "hf" / "config.json", lambda config: config["text_config"].update(architectures=stated))
    internvl_bridge.repair(tmp_path / "hf", tmp_path / "repaired")
    assert config_of(tmp_path / "repaired")["text_config"]["architectures"] == ["Qwen2ForCausalLM"]


def test_a_thumbnail_that_the_source_has_not_is_remembered_without_a_sidecar(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config.update(use_thumbnail=False))
    internvl_bridge.to_hf(source, tmp_path / "hf")
    (tmp_path / "hf" / "internvl_bridge.json").unlink()
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert config_of(tmp_path / "back")["use_thumbnail"] is False


def test_without_a_processor_the_tiling_is_that_of_config_json(custom: Custom, tmp_path: Path):
    source, hf = custom("qwen2-300m"), tmp_path / "hf"
    tiling = {"min_dynamic_patch": 2, "max_dynamic_patch": 7, "use_thumbnail": False, "dynamic_image_size": True}
    edit_json(source / "config.json", lambda config: config.update(tiling))
    internvl_bridge.to_hf(source, hf)
    for name in ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"):
        (hf / name).unlink()
    (hf / "internvl_bridge.json").unlink()
    internvl_bridge.to_custom(hf, tmp_path / "back")
    assert {name: config_of(tmp_path / "back")[name] for name in tiling} == tiling
    internvl_bridge.repair(hf, tmp_path / "repaired")
    made = json.loads((tmp_path / "repaired" / "preprocessor_config.json").read_text())
    assert (made["min_patches"], made["max_patches"]) == (2, 7)


def test_engines_that_lack_what_they_ask_for_are_not_named(custom: Custom, tmp_path: Path):
    hf = tmp_path / "hf"
    internvl_bridge.to_hf(custom("qwen3moe-6b"), hf, experts="fused")
    assert set(internvl_bridge.inspect(hf).engines) == {"transformers", "vLLM"}
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "plain")
    edit_json(tmp_path / "plain" / "config.json", lambda config: config["text_config"].pop("architectures"))
    assert set(internvl_bridge.inspect(tmp_path / "plain").engines) == {"transformers", "vLLM", "SGLang"}


def test_the_class_of_the_tower_is_left_out_and_told(custom: Custom, tmp_path: Path):
    hf = tmp_path / "hf"
    internvl_bridge.to_hf(custom("qwen2-300m"), hf)
    edit_json(hf / "config.json", lambda c: c["vision_config"].update(architectures=["InternVLVisionModel"]))
    assert any("llama.cpp's converter makes a file without" in fault for fault in internvl_bridge.inspect(hf).faults)
    report = internvl_bridge.repair(hf, tmp_path / "repaired")
    assert any("vision_config.architectures is left out" in note for note in said(report))
    assert "architectures" not in config_of(tmp_path / "repaired")["vision_config"]
    assert internvl_bridge.inspect(tmp_path / "repaired").faults == ()
    internvl_bridge.to_custom(hf, tmp_path / "custom")
    home = internvl_bridge.to_hf(tmp_path / "custom", tmp_path / "home")
    assert any("llama.cpp's converter makes a file without" in warning for warning in home.warnings)


def test_a_custom_checkpoint_without_a_head_is_warned_of(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen3-300m-tied"), tmp_path / "hf")
    kept = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "kept", tied="keep")
    copied = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "copied", tied="copy")
    beware = "vLLM and SGLang load a custom checkpoint without an output head"
    assert any(warning.startswith(beware) for warning in kept.warnings)
    assert internvl_bridge.inspect(tmp_path / "kept").faults == tuple(w for w in kept.warnings if w.startswith(beware))
    assert not any(warning.startswith(beware) for warning in copied.warnings)


def test_a_path_that_sglang_misreads_is_noted(custom: Custom, tmp_path: Path):
    report = internvl_bridge.to_hf(custom("qwen3-300m"), tmp_path / "my-InternVL3_5-1B-HF")
    [note] = [note for note in report.notes if note.startswith("SGLang takes every path")]
    assert internvl_bridge.inspect(report.output).remarks == (note,)


@pytest.mark.parametrize(
    ("name", "direction", "engines"),
    [
        ("internlm2-300m", "custom", {"transformers", "vLLM", "LMDeploy", "SGLang", "OpenVINO"}),
        ("phi3-300m", "custom", {"transformers", "LMDeploy", "OpenVINO"}),
        ("internlm2-300m", "hf", {"transformers", "vLLM", "LMDeploy", "SGLang", "llama.cpp"}),
        ("qwen3-300m", "hf", {"transformers", "vLLM", "LMDeploy", "SGLang", "llama.cpp", "mlx-vlm"}),
    ],
)
def test_the_engines_that_take_a_checkpoint_are_named(
    name: str, direction: str, engines: set[str], custom: Custom, tmp_path: Path
):
    source = custom(name)
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    found = internvl_bridge.inspect(source if direction == "custom" else tmp_path / "hf")
    assert set(found.engines) == engines
    assert direction == "custom" or report.engines == found.engines


def test_keys_that_no_engine_reads_are_named_with_the_way_out():
    found = internvl_bridge.inspect(DATA / "hf" / "qwen3-300m-tied@5.4.0")
    assert (found.spelling, found.engines) == ("L3", ())
    assert any("'internvl-bridge repair'" in fault for fault in found.faults)
