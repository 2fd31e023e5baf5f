"""Weights that lie elsewhere, under another name, among others or without some of them become what whole ones do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support import edit_json, load_all, said

import internvl_bridge
from internvl_bridge.errors import (
    CheckpointError,
    ContradictionError,
    OptionError,
    OutputError,
    TensorError,
    UnsupportedModelError,
)

Custom = Callable[[str], Path]
Tensors = dict[str, torch.Tensor]


def without_weights(directory: Path) -> Tensors:
    """The tensors of ``directory``, whose files are removed."""
    tensors = load_all(directory)
    for path in directory.glob("*.safetensors*"):
        path.unlink()
    return tensors


def replace_weights(directory: Path, keep: Callable[[str], bool]) -> Tensors:
    """Leave in ``directory`` the tensors that ``keep`` says; all of them are returned."""
    tensors = without_weights(directory)
    kept = {key: tensor for key, tensor in tensors.items() if keep(key)}
    save_file(kept, directory / "model.safetensors", metadata={"format": "pt"})
    return tensors


@pytest.mark.parametrize("place", ["weights", "pytorch_model_fsdp_0", "pytorch_model.bin"])
def test_weights_one_level_down_are_read(place: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "plain")
    tensors = without_weights(source)
    (source / place).mkdir()
    save_file(tensors, source / place / "model.safetensors")
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    assert f"The weights are those in {place}." in report.notes
    assert report.left_behind == ()
    assert internvl_bridge.verify(tmp_path / "plain", tmp_path / "hf").identical
    assert internvl_bridge.verify(source, tmp_path / "hf").identical


def test_of_several_directories_of_weights_one_must_be_given(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    tensors = without_weights(source)
    for number in (0, 1):
        (source / f"pytorch_model_fsdp_{number}").mkdir()
        save_file(tensors, source / f"pytorch_model_fsdp_{number}" / "model.safetensors")
    with pytest.raises(CheckpointError, match=f"{source}/pytorch_model_fsdp_0 --config {source}"):
        internvl_bridge.to_hf(source, tmp_path / "hf")
    report = internvl_bridge.to_hf(source / "pytorch_model_fsdp_1", tmp_path / "hf", config=source)
    assert report.source == source / "pytorch_model_fsdp_1"
    assert internvl_bridge.inspect(source / "pytorch_model_fsdp_1", config=source).refusal is None
    assert (tmp_path / "hf" / "tokenizer.json").exists()


@pytest.mark.parametrize("name", ["last.pt", "model.pth", "pytorch_model_fsdp.bin"])
def test_the_only_file_that_can_hold_the_weights_is_read(name: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "plain")
    torch.save(without_weights(source), source / name)
    torch.save({"step": 1}, source / "optimizer.pt")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    assert internvl_bridge.verify(tmp_path / "plain", tmp_path / "hf").identical


@pytest.mark.parametrize("container", ["nested", "prefixes", "safetensors"])
def test_of_a_model_and_its_average_the_chosen_one_is_converted(container: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "plain")
    model = without_weights(source)
    models = {"model": {key: t + 1 for key, t in model.items()}, "ema": model}
    flat = {f"{name}.{key}": t for name, tensors in models.items() for key, t in tensors.items()}
    if container == "safetensors":
        save_file(flat, source / "model.safetensors")
    else:
        torch.save({**models, "epoch": 3} if container == "nested" else flat, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds 2 models with the same keys: model, ema"):
        internvl_bridge.to_hf(source, tmp_path / "hf")
    with pytest.raises(CheckpointError, match="does not hold a state dict 'emma'"):
        internvl_bridge.to_hf(source, tmp_path / "hf", state_dict="emma")
    report = internvl_bridge.to_hf(source, tmp_path / "hf", state_dict="ema")
    assert internvl_bridge.verify(tmp_path / "plain", tmp_path / "hf").identical
    assert "The weights are those of the state dict 'ema', as was asked for." in report.notes
    assert any("Left out, as no weights of the model: model" in note for note in report.notes)
    found = internvl_bridge.inspect(source, state_dict="ema")
    assert found.parameters == sum(tensor.numel() for tensor in model.values())


@pytest.mark.parametrize("base", ["custom", "hf"])
@pytest.mark.parametrize("part", ["vision_model.", "mlp1.", "language_model.model.layers.0."])
def test_what_a_trainer_left_out_is_taken_from_the_base(part: str, base: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    partial = tmp_path / "partial"
    internvl_bridge.to_custom(tmp_path / "hf", partial)
    tensors = replace_weights(partial, lambda key: not key.startswith(part))
    with pytest.raises(TensorError, match="--fill-from BASE"):
        internvl_bridge.to_hf(partial, tmp_path / "filled")
    report = internvl_bridge.to_hf(
        partial, tmp_path / "filled", fill_from=source if base == "custom" else tmp_path / "hf"
    )
    assert sorted(report.filled) == sorted(key for key in tensors if key.startswith(part))
    assert any("partial lacks" in note for note in said(report))
    record = json.loads((tmp_path / "filled" / "internvl_bridge.json").read_text())["conversion"]
    assert record["filled"] == [*report.filled]
    assert internvl_bridge.verify(tmp_path / "hf", tmp_path / "filled").identical


def test_what_was_trained_is_never_the_bases(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    (tmp_path / "hf" / "internvl_bridge.json").unlink()
    trained = tmp_path / "trained"
    internvl_bridge.repair(tmp_path / "hf", trained)
    tensors = {key: tensor + 1 for key, tensor in without_weights(trained).items() if "vision_tower" not in key}
    torch.save(tensors, trained / "pytorch_model.bin")
    internvl_bridge.repair(trained, tmp_path / "filled", fill_from=source)
    filled, base = load_all(tmp_path / "filled"), load_all(tmp_path / "hf")
    assert {key: t for key, t in filled.items() if "vision_tower" not in key}.keys() == tensors.keys()
    for key, tensor in filled.items():
        assert torch.equal(tensor, tensors[key] if key in tensors else base[key])


def test_a_base_of_another_model_and_one_without_need_are_refused(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    with pytest.raises(OptionError, match=r"lacks no tensor that .* Leave out --fill-from"):
        internvl_bridge.to_hf(source, tmp_path / "x", fill_from=tmp_path / "hf")
    replace_weights(source, lambda key: not key.startswith("mlp1."))
    with pytest.raises(ContradictionError, match="describe two different models"):
        internvl_bridge.to_hf(source, tmp_path / "x", fill_from=custom("llama-6b"))
    edit_json(source / "config.json", lambda config: config["vision_config"].update(num_hidden_layers=1))
    with pytest.raises(ContradictionError, match="their vision towers have other sizes"):
        internvl_bridge.to_hf(source, tmp_path / "x", fill_from=tmp_path / "hf")


def test_a_base_that_changes_meanwhile_is_noticed(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    replace_weights(source, lambda key: not key.startswith("mlp1."))
    weights = tmp_path / "hf" / "model.safetensors"

    def change(task: str, _size: int, _files: int) -> Callable[[int, int], None]:
        if task.startswith("Converting"):
            weights.write_bytes(weights.read_bytes()[:-2] + b"ab")
        return lambda _done, _finished: None

    with pytest.raises(CheckpointError, match=f"{weights} was changed while"):
        internvl_bridge.to_hf(source, tmp_path / "filled", fill_from=tmp_path / "hf", progress=change)
    assert not (tmp_path / "filled").exists()


def test_a_base_that_is_only_touched_meanwhile_is_read_again(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    replace_weights(source, lambda key: not key.startswith("mlp1."))
    weights = tmp_path / "hf" / "model.safetensors"

    def touch(task: str, _size: int, _files: int) -> Callable[[int, int], None]:
        if task.startswith("Converting"):
            weights.chmod(0o600)
        return lambda _done, _finished: None

    internvl_bridge.to_hf(source, tmp_path / "filled", fill_from=tmp_path / "hf", progress=touch)
    assert internvl_bridge.verify(tmp_path / "hf", tmp_path / "filled").identical


@pytest.mark.parametrize("spoiled", ["head", "state", "nested"])
def test_an_average_is_not_taken_because_the_model_has_one_more_entry(spoiled: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    model = without_weights(source)
    others = {"head": {"value_head.weight": torch.ones(3)}, "state": {"_extra_state": None}, "nested": {}}
    held = {**model, **others[spoiled]}
    torch.save({"model": {"actor": held} if spoiled == "nested" else held, "ema": model}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds 2 models with the same keys: model, ema"):
        internvl_bridge.to_hf(source, tmp_path / "hf")


def test_a_model_and_an_average_within_one_state_dict_can_be_chosen(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "plain")
    model = without_weights(source)
    average = {f"ema.{key}": tensor + 1 for key, tensor in model.items()}
    state = {**{f"model.{key}": tensor for key, tensor in model.items()}, **average}
    torch.save({"state_dict": state, "epoch": 1}, source / "last.ckpt.pt")
    with pytest.raises(CheckpointError, match="--state-dict model "):
        internvl_bridge.to_hf(source, tmp_path / "hf")
    internvl_bridge.to_hf(source, tmp_path / "hf", state_dict="model")
    assert internvl_bridge.verify(tmp_path / "plain", tmp_path / "hf").identical


@pytest.mark.parametrize("beside", ["model/model.safetensors", "model_world_size_2_rank_0.pt", "x-00001-of-00002.bin"])
def test_a_file_of_another_name_is_not_taken_beside_weights_of_a_trainer(beside: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    tensors = without_weights(source)
    torch.save({key: tensor + 1 for key, tensor in tensors.items()}, source / "other.pt")
    (source / beside).parent.mkdir(exist_ok=True)
    if beside.startswith("model/"):
        save_file(tensors, source / beside)
        internvl_bridge.to_hf(source, tmp_path / "hf")
        assert internvl_bridge.verify(source, tmp_path / "hf").identical
    else:
        torch.save({}, source / beside)
        with pytest.raises(CheckpointError):
            internvl_bridge.to_hf(source, tmp_path / "hf")


def test_weights_behind_a_link_are_not_overwritten(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    real = tmp_path / "real"
    real.mkdir()
    (source / "model.safetensors").rename(real / "model.safetensors")
    (real / "config.json").write_bytes((source / "config.json").read_bytes())
    (source / "model").symlink_to(real)
    before = (real / "model.safetensors").read_bytes()
    with pytest.raises(OutputError, match="does not change its source"):
        internvl_bridge.to_hf(source, real, overwrite=True)
    with pytest.raises(OutputError, match="lies inside"):
        internvl_bridge.to_hf(source, real / "hf")
    assert (real / "model.safetensors").read_bytes() == before


def test_an_adapter_beside_the_base_is_refused_as_beside_the_source(custom: Custom, tmp_path: Path):
    source, base = custom("qwen2-300m"), tmp_path / "base"
    internvl_bridge.to_hf(source, base)
    replace_weights(source, lambda key: not key.startswith("mlp1."))
    save_file({"base_model.model.x.lora_A.weight": torch.ones(1)}, base / "adapter_model.safetensors")
    with pytest.raises(UnsupportedModelError, match=f"{base} holds an adapter"):
        internvl_bridge.to_hf(source, tmp_path / "hf", fill_from=base)
    assert internvl_bridge.to_hf(source, tmp_path / "hf", fill_from=base, accept={"adapter"}).filled


@pytest.mark.parametrize("lacks", ["embeddings", "nothing else"])
def test_a_head_of_the_bases_own_is_taken_with_its_embeddings_only(lacks: str, custom: Custom, tmp_path: Path):
    head, embeddings = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    base, source = custom("qwen3-300m-tied"), tmp_path / "source"
    shutil.copytree(base, source)
    tensors = load_all(base)
    own = {**tensors, head: tensors[embeddings] + 1}
    save_file(own, base / "model.safetensors", metadata={"format": "pt"})
    replace_weights(
        source, lambda key: not key.startswith("mlp1.") and not (lacks == "embeddings" and key == embeddings)
    )
    report = internvl_bridge.to_hf(source, tmp_path / "hf", fill_from=base)
    assert (head in report.filled) == (lacks == "embeddings")
    assert any("has an output head of its own. It is not taken" in note for note in said(report)) == (
        lacks != "embeddings"
    )


def test_a_base_that_computes_something_else_is_a_warning(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    internvl_bridge.to_hf(source, tmp_path / "base")
    edit_json(source / "config.json", lambda config: config["llm_config"].update(rms_norm_eps=1e-3))
    replace_weights(source, lambda key: not key.startswith("mlp1."))
    report = internvl_bridge.to_hf(source, tmp_path / "hf", fill_from=tmp_path / "base")
    assert any("disagree about what the model computes: text_config.rms_norm_eps" in w for w in report.warnings)


def test_of_a_base_with_two_models_nothing_is_chosen_by_an_option_of_the_source(custom: Custom, tmp_path: Path):
    source, base = custom("qwen2-300m"), tmp_path / "base"
    shutil.copytree(source, base)
    model = without_weights(base)
    torch.save({"model": model, "ema": model}, base / "pytorch_model.bin")
    replace_weights(source, lambda key: not key.startswith("mlp1."))
    with pytest.raises(CheckpointError, match=r"For --fill-from: .*the weights of one model") as error:
        internvl_bridge.to_hf(source, tmp_path / "hf", fill_from=base)
    assert "--state-dict" not in error.value.remedy


@pytest.mark.parametrize("kind", ["mixed", "other"])
def test_a_note_says_what_loaders_make_of_dtypes(kind: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    dtype = json.loads((source / "config.json").read_text())["torch_dtype"]
    other = torch.float16 if dtype == "float32" else torch.float32
    tensors = without_weights(source)
    changed = {key: t.to(other) if kind == "other" or key == "mlp1.0.weight" else t for key, t in tensors.items()}
    save_file(changed, source / "model.safetensors", metadata={"format": "pt"})
    report = internvl_bridge.to_hf(source, tmp_path / "hf")
    expected = f"makes them all {dtype}" if kind == "mixed" else f"What loads the output makes them {dtype}"
    assert any(expected in note for note in report.notes)
