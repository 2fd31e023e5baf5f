"""transformers loads what we write, with nothing missing, and computes what upstream's model computed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support import DATA, NAMES, copy_custom, edit_json
from transformers import InternVLForConditionalGeneration
from transformers.utils import logging

import internvl_bridge

logging.set_verbosity_error()
logging.disable_progress_bar()

# The largest difference upstream's own twin showed is 1.4e-5: another order of float32 sums.
TOLERANCE = 2e-5


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_the_upstream_model(name: str, tmp_path: Path):
    internvl_bridge.to_hf(copy_custom(name, tmp_path / "custom"), tmp_path / "hf")
    model, loading = InternVLForConditionalGeneration.from_pretrained(
        tmp_path / "hf", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(loading.values()), loading
    expected = load_file(DATA / "expected" / f"{name}.safetensors")
    with torch.no_grad():
        logits = model.eval()(pixel_values=expected["pixel_values"], input_ids=expected["input_ids"]).logits
    assert logits.shape == expected["logits"].shape
    assert (logits - expected["logits"]).abs().max().item() <= TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_the_image_token_is_the_tokenizers_and_not_the_default(name: str, tmp_path: Path):
    internvl_bridge.to_hf(copy_custom(name, tmp_path / "custom"), tmp_path / "hf")
    model = InternVLForConditionalGeneration.from_pretrained(tmp_path / "hf")
    assert model.config.image_token_id == 590


@pytest.mark.parametrize("name", ["qwen3-300m-tied", "qwen3-300m"])
def test_tying_survives(name: str, tmp_path: Path):
    internvl_bridge.to_hf(copy_custom(name, tmp_path / "custom"), tmp_path / "hf")
    model = InternVLForConditionalGeneration.from_pretrained(tmp_path / "hf")
    head, embeddings = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head.data_ptr() == embeddings.data_ptr()) is (name == "qwen3-300m-tied")


def test_what_transformers_saves_converts_to_the_custom_checkpoint_it_came_from(tmp_path: Path):
    custom = copy_custom("internlm2-6b", tmp_path / "custom")
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    model = InternVLForConditionalGeneration.from_pretrained(tmp_path / "hf", dtype="auto")
    model.save_pretrained(tmp_path / "saved")
    report = internvl_bridge.to_custom(tmp_path / "saved", tmp_path / "back", reference=custom)
    assert report.family == "InternLM2"
    assert report.reference is not None
    assert report.reference.identical
    assert report.reference.l2 == 0


LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}


@pytest.mark.parametrize("kind", ["su", "longrope"])
def test_phi3_with_a_long_context_loads_and_comes_home(kind: str, tmp_path: Path):
    custom = copy_custom("phi3-300m", tmp_path / "custom")

    def lengthen(config):
        config["llm_config"]["original_max_position_embeddings"] = 64
        config["llm_config"]["rope_scaling"] = {"type": kind, **LONG}

    edit_json(custom / "config.json", lengthen)
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    model = InternVLForConditionalGeneration.from_pretrained(tmp_path / "hf")
    model.save_pretrained(tmp_path / "saved")
    internvl_bridge.to_custom(tmp_path / "saved", tmp_path / "back")
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["llm_config"]["rope_scaling"] == {"type": "su", **LONG}
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "home")
    assert (tmp_path / "home" / "config.json").read_bytes() == (custom / "config.json").read_bytes()


def test_gpt_oss_that_states_no_scaling_keeps_that_of_its_class(tmp_path: Path):
    custom = copy_custom("gptoss-300m", tmp_path / "custom")
    edit_json(custom / "config.json", lambda config: config["llm_config"].pop("rope_scaling"))
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    model = InternVLForConditionalGeneration.from_pretrained(tmp_path / "hf")
    assert model.model.language_model.rotary_emb.rope_type == "yarn"


def test_gpt_oss_without_scaling_is_not_scaled_by_any_version(tmp_path: Path):
    custom = copy_custom("gptoss-300m", tmp_path / "custom")
    edit_json(custom / "config.json", lambda config: config["llm_config"].update(rope_scaling=None))
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    model = InternVLForConditionalGeneration.from_pretrained(tmp_path / "hf")
    assert model.model.language_model.rotary_emb.attention_scaling == 1.0
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "home")
    assert (tmp_path / "home" / "config.json").read_bytes() == (custom / "config.json").read_bytes()


@pytest.mark.parametrize("name", ["qwen2-300m", "qwen3-300m", "llama-6b", "internlm2-300m"])
def test_a_custom_config_in_the_words_of_transformers_5_keeps_its_rotary_base(name: str, tmp_path: Path):
    custom = copy_custom(name, tmp_path / "custom")

    def modernise(config):
        text = config["llm_config"]
        scaling = text.pop("rope_scaling") or {"type": "default"}
        text["rope_parameters"] = {"rope_theta": text.pop("rope_theta"), "rope_type": scaling.pop("type"), **scaling}

    edit_json(custom / "config.json", modernise)
    internvl_bridge.to_hf(custom, tmp_path / "hf")
    model, _ = InternVLForConditionalGeneration.from_pretrained(
        tmp_path / "hf", dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    expected = load_file(DATA / "expected" / f"{name}.safetensors")
    with torch.no_grad():
        logits = model.eval()(pixel_values=expected["pixel_values"], input_ids=expected["input_ids"]).logits
    assert (logits - expected["logits"]).abs().max().item() <= TOLERANCE
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "home")
    assert (tmp_path / "home" / "config.json").read_bytes() == (custom / "config.json").read_bytes()
