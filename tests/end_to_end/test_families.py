"""Which family an output has: from the sidecar, from a reference, or by default; and rarer releases."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import add_modules, edit_json, load_all, rewrite, said

import internvl_bridge
from internvl_bridge.errors import BridgeError, UnsupportedModelError

Custom = Callable[[str], Path]
SIDECAR = "internvl_bridge.json"


@pytest.fixture
def internlm2(custom: Custom, tmp_path: Path) -> tuple[Path, Path]:
    source = custom("internlm2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    return source, tmp_path / "hf"


def test_a_llama_with_a_sidecar_is_internlm2_again(internlm2, tmp_path: Path):
    source, hf = internlm2
    report = internvl_bridge.to_custom(hf, tmp_path / "back")
    assert report.family == "InternLM2"
    assert any("InternLM2's names" in note and SIDECAR in note for note in said(report))
    assert internvl_bridge.verify(source, tmp_path / "back").identical


def test_a_llama_with_a_reference_is_internlm2_again(internlm2, tmp_path: Path):
    source, hf = internlm2
    add_modules(source)
    (hf / SIDECAR).unlink()
    report = internvl_bridge.to_custom(hf, tmp_path / "back", reference=source)
    assert report.family == "InternLM2"
    assert report.reference is not None
    assert report.reference.identical
    assert (tmp_path / "back" / "config.json").read_bytes() == (source / "config.json").read_bytes()


def test_a_llama_with_neither_stays_a_llama_and_the_report_says_so(internlm2, tmp_path: Path):
    _, hf = internlm2
    (hf / SIDECAR).unlink()
    report = internvl_bridge.to_custom(hf, tmp_path / "back")
    assert report.family == "Llama"
    assert any("Llama's names" in note and "No sidecar or --reference" in note for note in said(report))
    assumed = "so they are assumed: ps_version 'v2', pad2square False, use_backbone_lora 0, use_llm_lora 0. If"
    assert any(assumed in note for note in said(report))
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["llm_config"]["architectures"] == ["LlamaForCausalLM"]
    assert config["ps_version"] == "v2"
    assert config["template"] == "internvl2_5"
    assert [config[name] for name in ("dynamic_image_size", "use_thumbnail")] == [True, True]
    assert [config[name] for name in ("min_dynamic_patch", "max_dynamic_patch")] == [1, 12]
    assert config["force_image_size"] == 56
    assert config["llm_config"]["rope_scaling"] == {"type": "dynamic", "factor": 2.0}
    again = internvl_bridge.to_hf(tmp_path / "back", tmp_path / "again")
    assert again.family == "Llama"
    assert internvl_bridge.verify(hf, tmp_path / "again").identical


def test_a_sidecar_of_another_model_is_refused(internlm2, custom: Custom, tmp_path: Path):
    _, hf = internlm2
    internvl_bridge.to_hf(custom("qwen3-300m"), tmp_path / "other")
    (hf / SIDECAR).write_bytes((tmp_path / "other" / SIDECAR).read_bytes())
    with pytest.raises(BridgeError, match=r"remove internvl_bridge\.json"):
        internvl_bridge.to_custom(hf, tmp_path / "back")


def test_internlm3_is_decided_by_its_keys(custom: Custom, tmp_path: Path):
    for name, key in (("llama-6b", "self_attn.q_proj"), ("internlm2-300m", "attention.wqkv")):
        source = custom(name)
        edit_json(
            source / "config.json",
            lambda c: c["llm_config"].update(architectures=["InternLM3ForCausalLM"], qkv_bias=False, bias=False),
        )
        report = internvl_bridge.to_hf(source, tmp_path / f"{name}-hf")
        assert report.family.startswith("InternLM3")
        config = json.loads((tmp_path / f"{name}-hf" / "config.json").read_text())
        assert config["text_config"]["model_type"] == "llama"
        internvl_bridge.to_custom(tmp_path / f"{name}-hf", tmp_path / f"{name}-back")
        assert f"language_model.model.layers.0.{key}.weight" in load_all(tmp_path / f"{name}-back")
        assert internvl_bridge.verify(source, tmp_path / f"{name}-back").identical


def test_internlm3_with_biases_that_llama_cannot_have(custom: Custom, tmp_path: Path):
    source = custom("llama-6b")
    edit_json(
        source / "config.json",
        lambda c: c["llm_config"].update(architectures=["InternLM3ForCausalLM"], qkv_bias=True, bias=False),
    )
    with pytest.raises(UnsupportedModelError, match="qkv_bias and bias differ"):
        internvl_bridge.to_hf(source, tmp_path / "hf")


def test_internlm2_with_biases(custom: Custom, tmp_path: Path):
    source = custom("internlm2-6b")

    def add_biases(tensors):
        for layer in range(2):
            block = f"language_model.model.layers.{layer}.attention"
            tensors[f"{block}.wqkv.bias"] = torch.arange(128, dtype=torch.bfloat16)
            tensors[f"{block}.wo.bias"] = torch.ones(64, dtype=torch.bfloat16)

    rewrite(source, add_biases)
    edit_json(source / "config.json", lambda config: config["llm_config"].update(bias=True))
    internvl_bridge.to_hf(source, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["text_config"]["attention_bias"] is True
    keys = load_all(tmp_path / "hf")["language_model.model.layers.1.self_attn.k_proj.bias"]
    assert keys.tolist() == [*range(32, 48), *range(96, 112)]
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()


def make_mxfp4(source: Path) -> None:
    """Give the GPT-OSS checkpoint the names, dtypes and shapes of MXFP4 experts."""

    def pack(tensors):
        for layer in range(2):
            for name, rows, width in (("gate_up", 192, 64), ("down", 64, 96)):
                expert = f"language_model.model.layers.{layer}.mlp.experts.{name}_proj"
                del tensors[expert]
                shape = (4, rows, width // 32)
                tensors[f"{expert}_blocks"] = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
                tensors[f"{expert}_scales"] = torch.randint(120, 130, shape, dtype=torch.uint8)

    rewrite(source, pack)


def test_mxfp4_experts_are_renamed_and_copied(custom: Custom, tmp_path: Path):
    source = custom("gptoss-300m")
    make_mxfp4(source)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "mxfp4"}
    assert internvl_bridge.verify(source, tmp_path / "hf").identical
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


def test_quantization_config_without_quantised_tensors_is_a_contradiction(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda c: c.update(quantization_config={"quant_method": "awq"}))
    with pytest.raises(UnsupportedModelError, match="'awq'"):
        internvl_bridge.to_hf(source, tmp_path / "hf")


def test_a_layer_other_than_the_last_is_converted_with_a_warning(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config.update(select_layer=-2))
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert any("vision_feature_layer is -2" in note and "4.57" in note for note in said(report))


def test_a_tokenizer_from_another_directory(custom: Custom, tmp_path: Path):
    source, tokenizer = custom("qwen2-300m"), custom("qwen3-300m")
    for path in source.glob("*token*.json"):
        path.unlink()
    report = internvl_bridge.to_hf(source, tmp_path / "hf", tokenizer=tokenizer)
    assert "tokenizer.json" in report.files
    (tmp_path / "empty").mkdir()
    with pytest.raises(BridgeError, match="holds no tokenizer file"):
        internvl_bridge.to_hf(source, tmp_path / "other", tokenizer=tmp_path / "empty")


def test_remote_code_is_copied_from_the_reference_and_never_run(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    modules = add_modules(source)
    back = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back", reference=source)
    assert set(modules) <= set(back.files)
    for name in (*modules, "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    assert not any("auto_map" in note or "*.py" in note for note in said(back))


def test_remote_code_is_no_part_of_an_hf_checkpoint_and_comes_home_with_a_warning(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    modules = add_modules(source)
    there = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert there.left_behind == ()
    assert not list((tmp_path / "hf").glob("*.py"))
    assert "auto_map" not in (tmp_path / "hf" / "config.json").read_text()
    back = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    for name in modules:
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    warning = f"The sidecar restores {', '.join(modules)}. Read them before loading with trust_remote_code"
    assert any(note.startswith(warning) for note in said(back))


def test_remote_code_that_nobody_has_comes_from_the_hub_or_is_missed(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    restored = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "restored")
    missed = "The output needs configuration_internvl_chat.py, modeling_internvl_chat.py, which the source does not"
    assert any(note.startswith(missed) for note in said(restored))
    (tmp_path / "hf" / SIDECAR).unlink()
    before = json.loads((source / "config.json").read_text())
    for directory, reference in (("referred", source), ("alone", None)):
        report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / directory, reference=reference)
        assert any(
            note.startswith("auto_map names OpenGVLab/InternVL3-8B for the Python modules (*.py), chosen by")
            for note in said(report)
        )
        after = json.loads((tmp_path / directory / "config.json").read_text())
        assert after["auto_map"] == {
            name: f"OpenGVLab/InternVL3-8B--{module}" for name, module in before["auto_map"].items()
        }
    referred = json.loads((tmp_path / "referred" / "config.json").read_text())
    assert referred == before | {"auto_map": referred["auto_map"]}


def test_what_is_no_small_text_is_left_behind_and_named(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    (source / "README.md").write_text("kept")
    (source / "picture.png").write_bytes(b"\x89PNG")
    (source / "runs").mkdir()
    there = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert there.left_behind == ("picture.png", "runs")
    assert "README.md" not in there.files
    assert json.loads((tmp_path / "hf" / SIDECAR).read_text())["files"]["README.md"] == "kept"


def test_a_reference_without_weights_still_tells_the_family(internlm2, tmp_path: Path):
    source, hf = internlm2
    (hf / SIDECAR).unlink()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((source / "config.json").read_bytes())
    report = internvl_bridge.to_custom(hf, tmp_path / "back", reference=bare)
    assert report.family == "InternLM2"
    assert report.reference is None


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8, torch.bool, torch.int64])
def test_dtypes_that_no_unquantised_weight_has_are_refused(dtype: torch.dtype, custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    tensors = load_file(source / "model.safetensors")
    tensors["vision_model.encoder.layers.0.ls1"] = torch.zeros(32).to(dtype)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UnsupportedModelError, match=r"layers\.0\.ls1 has dtype"):
        internvl_bridge.to_hf(source, tmp_path / "hf")


def test_mxfp4_blocks_of_another_dtype_are_refused(custom: Custom, tmp_path: Path):
    source = custom("gptoss-300m")
    make_mxfp4(source)
    key = "language_model.model.layers.0.mlp.experts.down_proj_scales"
    rewrite(source, lambda tensors: tensors.update({key: tensors[key].to(torch.bfloat16)}))
    with pytest.raises(UnsupportedModelError, match="down_proj_scales has dtype BF16"):
        internvl_bridge.to_hf(source, tmp_path / "hf")


@pytest.mark.parametrize("with_weights", [True, False])
def test_a_reference_of_another_family_is_refused(with_weights: bool, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(custom("qwen3-300m"), tmp_path / "other")
    if not with_weights:
        (tmp_path / "other" / "model.safetensors").unlink()
    with pytest.raises(BridgeError, match="belongs to this checkpoint"):
        internvl_bridge.to_hf(source, tmp_path / "hf", reference=tmp_path / "other")
    assert not (tmp_path / "hf").exists()


def test_a_reference_whose_sizes_differ_where_the_source_is_silent_adds_nothing(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "reference")
    edit_json(tmp_path / "reference" / "config.json", lambda c: c["text_config"].update(rms_norm_eps=0.5))
    edit_json(source / "config.json", lambda config: config["llm_config"].pop("rms_norm_eps"))
    internvl_bridge.to_hf(source, tmp_path / "hf", reference=tmp_path / "reference")
    assert "rms_norm_eps" not in json.loads((tmp_path / "hf" / "config.json").read_text())["text_config"]


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Nope"])
def test_a_sidecar_whose_family_is_not_that_of_its_config_is_refused(family: str, internlm2, tmp_path: Path):
    _, hf = internlm2
    edit_json(hf / SIDECAR, lambda sidecar: sidecar.update(family=family))
    with pytest.raises(BridgeError, match="family"):
        internvl_bridge.to_custom(hf, tmp_path / "back")


def test_a_sidecar_with_the_old_pixel_shuffle_is_refused(internlm2, tmp_path: Path):
    _, hf = internlm2
    old = '\\"ps_version\\": \\"v2\\"'
    text = (hf / SIDECAR).read_text()
    assert old in text
    (hf / SIDECAR).write_text(text.replace(old, old.replace("v2", "v1")))
    with pytest.raises(BridgeError, match=r"v1.*Remove it"):
        internvl_bridge.to_custom(hf, tmp_path / "back")


def test_a_checkpoint_that_nowhere_says_it_is_tied_is_incomplete_without_a_head(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    rewrite(tmp_path / "hf", lambda tensors: tensors.pop("language_model.lm_head.weight"))
    for change in (lambda c: c.pop("tie_word_embeddings"), lambda c: c["text_config"].pop("tie_word_embeddings")):
        edit_json(tmp_path / "hf" / "config.json", change)
        with pytest.raises(BridgeError, match=r"lm_head\.weight"):
            internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")


def test_a_head_beside_a_flag_that_says_tied_is_kept_and_noted(custom: Custom, tmp_path: Path):
    source = custom("qwen3-300m")
    edit_json(source / "config.json", lambda config: config["llm_config"].update(tie_word_embeddings=True))
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert any("head of its own" in note for note in said(report))
    assert "language_model.lm_head.weight" in load_all(tmp_path / "hf")


def test_fields_that_nobody_knows_are_noted_and_kept_in_the_sidecar(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    edit_json(tmp_path / "hf" / "config.json", lambda config: config["text_config"].update(new_trick=7))
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert any("new_trick" in note for note in said(report))
    internvl_bridge.to_hf(tmp_path / "back", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["text_config"]["new_trick"] == 7


def test_a_config_that_describes_other_tensors_than_the_source_is_never_written(
    custom: Custom, tmp_path: Path, monkeypatch
):
    from internvl_bridge.convert.companions import to_hf

    translate = to_hf.to_hf_config

    def wrong(*arguments):
        config = translate(*arguments)
        config["text_config"]["num_attention_heads"] = 2
        return config

    monkeypatch.setattr(to_hf, "to_hf_config", wrong)
    with pytest.raises(BridgeError, match="models of different sizes"):
        internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["qwen2-300m"]


def test_an_image_token_id_that_the_tokenizer_denies_is_noted(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    edit_json(tmp_path / "hf" / "config.json", lambda config: config.update(image_token_id=7))
    report = internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "back")
    assert any("image_token_id is 7, but the tokenizer has 590" in note for note in said(report))


def test_an_order_that_there_is_not_is_refused(custom: Custom, tmp_path: Path):
    with pytest.raises(BridgeError, match=r"'size' is not a choice for order\. Use 'source' or 'name'"):
        internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf", order="size")
    assert not (tmp_path / "hf").exists()


def test_another_end_of_a_turn_than_config_json_has_is_noted_once(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    there = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert [
        note
        for note in said(there)
        if "llm_config has eos_token_id 2, but the chat template ends a turn with 474" in note
    ]
    edit_json(source / "config.json", lambda config: config["llm_config"].update(eos_token_id=[2, 474]))
    assert not any("eos_token_id" in note for note in said(internvl_bridge.to_hf(source, tmp_path / "again")))
    edit_json(source / "config.json", lambda config: config["llm_config"].pop("eos_token_id"))
    assert not any("eos_token_id" in note for note in said(internvl_bridge.to_hf(source, tmp_path / "silent")))
