"""What trainers, downloads and editors leave in a directory does not change what is converted, or is named."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import edit_json, load_all, said

import internvl_bridge
from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.storage.header import read_header

Custom = Callable[[str], Path]


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_weights_beside_an_adapter_are_converted_only_if_that_is_accepted(name: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    save_file({"base_model.model.x.lora_A.weight": torch.ones(1)}, source / name)
    with pytest.raises(UnsupportedModelError, match=f"holds an adapter \\({name}"):
        internvl_bridge.to_hf(source, tmp_path / "hf")
    assert "holds an adapter" in str(internvl_bridge.inspect(source).refusal)
    report = internvl_bridge.to_hf(source, tmp_path / "hf", accept={"adapter"})
    assert report.accepted == ("adapter",)
    assert not (tmp_path / "hf" / name).exists()


def test_files_without_a_tensor_of_the_model_are_left_alone_with_a_note(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    save_file({"v_head.summary.weight": torch.ones(1)}, source / "value_head.safetensors")
    (source / ".DS_Store").write_bytes(b"Mac")
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert any("hold no tensor of the model, and were left alone: value_head.safetensors" in n for n in said(report))
    assert report.left_behind == ("value_head.safetensors",)


@pytest.mark.parametrize("metadata", [None, {"format": "np"}, {"format": ""}, {"format": "mlx", "by": "me"}])
def test_every_output_says_that_its_tensors_are_torchs(metadata: dict[str, str] | None, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    save_file(load_file(source / "model.safetensors"), source / "model.safetensors", metadata=metadata)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    assert read_header(tmp_path / "hf" / "model.safetensors").metadata == {**(metadata or {}), "format": "pt"}


@pytest.mark.parametrize("direction", ["custom", "hf"])
def test_a_stale_vocabulary_size_gives_way_to_the_tensors(direction: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    directory, section = (source, "llm_config") if direction == "custom" else (tmp_path / "hf", "text_config")
    (tmp_path / "hf" / "internvl_bridge.json").unlink()
    right = json.loads((directory / "config.json").read_text())[section]["vocab_size"]
    edit_json(directory / "config.json", lambda config: config[section].update(vocab_size=right - 8))
    convert = internvl_bridge.to_hf if direction == "custom" else internvl_bridge.to_custom
    report = convert(directory, tmp_path / "output")
    assert any(f"has vocab_size {right - 8}, but the embeddings" in note for note in said(report))
    other = json.loads((tmp_path / "output" / "config.json").read_text())
    assert other["text_config" if direction == "custom" else "llm_config"]["vocab_size"] == right
    if direction == "hf":
        internvl_bridge.repair(directory, tmp_path / "repaired")
        repaired = json.loads((tmp_path / "repaired" / "config.json").read_text())
        assert repaired["text_config"]["vocab_size"] == right


def test_embeddings_without_rows_are_called_placeholders(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    tensors = load_all(source)
    for key in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        tensors[key] = tensors[key][:0].clone()
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(internvl_bridge.TensorError, match="which holds nothing"):
        internvl_bridge.to_hf(source, tmp_path / "hf")


def test_embeddings_that_their_head_contradicts_are_refused(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    tensors = load_all(source)
    key = "language_model.model.embed_tokens.weight"
    tensors[key] = torch.cat([tensors[key], tensors[key][:8]])
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(internvl_bridge.TensorError, match=r"embed_tokens\.weight has shape"):
        internvl_bridge.to_hf(source, tmp_path / "hf")


def test_wrapped_keys_and_buffers_are_read_and_told(custom: Custom, tmp_path: Path):
    source = custom("llama-6b")
    internvl_bridge.to_hf(source, tmp_path / "plain")
    tensors = {f"module.{key.replace('.attn.', '._orig_mod.attn.')}": t for key, t in load_all(source).items()}
    tensors["module.language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert internvl_bridge.verify(tmp_path / "plain", tmp_path / "hf").identical
    told = " ".join(said(report))
    assert "The keys begin with 'module.'" in told
    assert "Names of training wrappers were taken out of keys" in told
    assert "Left out, as no weights of the model: module.language_model.model.layers.0.self_attn.rotary_emb" in told


def test_repair_does_not_need_one_dtype_for_queries_and_keys(custom: Custom, tmp_path: Path):
    hf = tmp_path / "hf"
    internvl_bridge.to_hf(custom("qwen2-300m"), hf)
    tensors = {key: t.float() if "attention.q_proj" in key else t for key, t in load_all(hf).items()}
    save_file(tensors, hf / "model.safetensors", metadata={"format": "pt"})
    internvl_bridge.repair(hf, tmp_path / "repaired")
    repaired = load_all(tmp_path / "repaired")
    assert {key: t.dtype for key, t in repaired.items()} == {key: t.dtype for key, t in tensors.items()}
    with pytest.raises(internvl_bridge.TensorError, match="different dtypes"):
        internvl_bridge.to_custom(hf, tmp_path / "custom")


def test_a_byte_order_mark_is_not_passed_on(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    names = ("config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json")
    for name in names:
        (source / name).write_bytes(b"\xef\xbb\xbf" + (source / name).read_bytes())
    internvl_bridge.to_hf(source, tmp_path / "hf")
    for name in names:
        assert not (tmp_path / "hf" / name).read_bytes().startswith(b"\xef\xbb\xbf")
    internvl_bridge.to_custom(tmp_path / "hf", tmp_path / "custom")
    assert (tmp_path / "custom" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()[3:]
