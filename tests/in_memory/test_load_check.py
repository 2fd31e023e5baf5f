"""What ``check-load`` says about checkpoints that open, and about those that do not.

Runs in transformers 5 and in 4.57 (``make test-matrix``).
"""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from support import DATA, NAMES, copy_custom, edit_json, rewrite
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app
from internvl_bridge.errors import OptionError
from internvl_bridge.in_memory import load_check, mapped_tensors, opening

Custom = Callable[[str], Path]
MAJOR = int(transformers.__version__.split(".")[0])


@pytest.fixture
def hf(custom: Custom, tmp_path: Path) -> Path:
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    return tmp_path / "hf"


@pytest.mark.parametrize("name", NAMES)
def test_a_conversion_computes_what_its_source_does_to_the_bit(name: str, tmp_path: Path):
    source = copy_custom(name, tmp_path / "source")
    internvl_bridge.to_hf(source, tmp_path / "hf")
    found = internvl_bridge.check_load(tmp_path / "hf", against=source)
    assert found.ok, found.as_json()
    assert found.changed == ()
    assert found.as_stored is not None
    assert found.as_stored > 50
    assert found.against is not None
    assert (found.against.largest, found.against.same_next_token, found.against.same_inputs) == (0.0, True, True)
    assert found.prompted is not None
    assert found.prompted.finite
    assert found.processor == "InternVLProcessor"
    assert found.imported["transformers"] == transformers.__version__


def test_what_transformers_makes_up_is_named(hf: Path):
    rewrite(hf, lambda tensors: tensors.pop("language_model.model.norm.weight"))
    found = internvl_bridge.check_load(hf)
    assert not found.ok
    assert [key.endswith("norm.weight") for key in found.missing] == [True]
    assert "made up by transformers" in "".join(found._repr_html_())


@pytest.mark.skipif(MAJOR != 4, reason="transformers 5 reads these")
def test_a_spelling_of_version_5_is_not_taken_for_loaded_in_version_4():
    found = internvl_bridge.check_load(DATA / "hf" / "qwen3-300m-tied@5.4.0")
    assert not found.ok
    assert len(found.missing) > 20
    assert len(found.unexpected) > 20
    assert found.changed


def test_parameters_that_are_replaced_without_a_word_are_named(hf: Path, monkeypatch: pytest.MonkeyPatch):
    def replacing(model, layers):
        opened = opening.open_checkpoint_model(model, layers)
        torch.nn.init.normal_(opened.model.get_output_embeddings().weight)
        return opened

    monkeypatch.setattr(load_check, "open_checkpoint_model", replacing)
    found = internvl_bridge.check_load(hf)
    assert (found.missing, found.changed, found.ok) == ((), ("lm_head.weight",), False)


def test_other_weights_do_not_agree(custom: Custom, hf: Path):
    source = custom("qwen3-300m")
    rewrite(hf, lambda tensors: tensors["language_model.lm_head.weight"].mul_(1.5))
    found = internvl_bridge.check_load(hf, against=hf.parent / "qwen2-300m")
    assert found.against is not None
    assert not found.ok
    assert found.against.relative > 0.1
    assert internvl_bridge.check_load(source, against=hf).ok is False


def resize(tensors: dict[str, torch.Tensor], rows: int) -> None:
    for key in ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"):
        tensors[key] = torch.cat([tensors[key]] * 2)[:rows].clone()


def test_another_vocabulary_cannot_be_compared(custom: Custom, hf: Path):
    source = custom("qwen3-300m")
    rewrite(source, lambda tensors: resize(tensors, 640))
    edit_json(source / "config.json", lambda config: config["llm_config"].update(vocab_size=640))
    found = internvl_bridge.check_load(source, against=hf)
    assert found.as_json()["against"]["largest"] == "inf"
    assert not found.ok


def test_some_layers_of_both_are_compared(hf: Path):
    found = internvl_bridge.check_load(hf, against=hf.parent / "qwen2-300m", layers=1)
    whole = internvl_bridge.check_load(hf)
    assert found.ok
    assert found.parameters < whole.parameters
    assert (found.unexpected, found.against.largest if found.against else None) == ((), 0.0)


@pytest.mark.parametrize("name", ["qwen3moe-6b", "gptoss-300m", "qwen3-300m-tied", "phi3-300m"])
def test_on_meta_no_weight_is_read(name: str, custom: Custom, tmp_path: Path):
    source = custom(name)
    internvl_bridge.to_hf(source, tmp_path / "hf")
    for directory in (source, tmp_path / "hf"):
        found = internvl_bridge.check_load(directory, meta=True, layers=1)
        assert found.ok, found.as_json()
        assert (found.as_stored, found.prompted) == (None, None)


def test_on_meta_a_missing_tensor_is_named(hf: Path):
    rewrite(hf, lambda tensors: tensors.pop("language_model.model.norm.weight"))
    found = internvl_bridge.check_load(hf, meta=True)
    assert (found.missing, found.ok) == (("model.language_model.norm.weight",), False)


@pytest.mark.parametrize("meta", [True, False])
def test_a_tensor_that_no_model_has_is_named(hf: Path, meta: bool):
    rewrite(hf, lambda tensors: tensors.update({"vision_tower.foo": torch.zeros(2)}))
    found = internvl_bridge.check_load(hf, meta=meta)
    assert ([key.endswith("vision_tower.foo") for key in found.unexpected], found.ok) == ([True], False)


def test_a_tensor_of_another_shape_is_named(hf: Path):
    rewrite(hf, lambda tensors: tensors.update({"multi_modal_projector.linear_1.bias": torch.zeros(5)}))
    found = internvl_bridge.check_load(hf)
    assert [key.endswith("linear_1.bias") for key in (*found.mismatched, *found.changed)] == [True, True]


@pytest.mark.skipif(MAJOR != 4, reason="transformers 5 loads the head")
def test_a_head_that_version_4_replaces_is_named_by_names_alone(custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen3-300m"), tmp_path / "hf")
    for section in (lambda config: config, lambda config: config["text_config"]):
        edit_json(tmp_path / "hf" / "config.json", lambda c, s=section: s(c).update(tie_word_embeddings=True))
    assert internvl_bridge.check_load(tmp_path / "hf", meta=True).unexpected == ("lm_head.weight",)


def test_a_template_that_fails_is_said_beside_the_processor(hf: Path):
    (hf / "chat_template.jinja").write_text("{% if")
    result = CliRunner().invoke(app, ["check-load", str(hf)])
    assert result.exit_code == 1
    assert "InternVLProcessor fails. TemplateSyntaxError" in result.stdout


def test_a_model_of_numbers_that_are_none_equals_itself(hf: Path):
    rewrite(hf, lambda tensors: tensors["language_model.model.norm.weight"][0:1].fill_(float("nan")))
    found = internvl_bridge.check_load(hf, against=hf, layers=99)
    assert found.against is not None
    assert (found.against.agrees, found.layers) == (True, None)


def test_a_checkpoint_without_a_processor_still_computes(hf: Path):
    for name in ("preprocessor_config.json", "processor_config.json", "tokenizer.json", "vocab.json"):
        (hf / name).unlink(missing_ok=True)
    found = internvl_bridge.check_load(hf)
    assert not found.ok
    assert found.processor_error
    assert found.prompted is not None
    assert (found.prompted.next_token, found.prompted.inputs) == (None, "made up, without a processor")


def test_what_is_not_a_number_is_noticed(hf: Path):
    rewrite(hf, lambda tensors: tensors["language_model.model.norm.weight"][0:1].fill_(float("nan")))
    found = internvl_bridge.check_load(hf)
    assert found.prompted is not None
    assert not found.prompted.finite
    assert not found.ok


def test_other_layers_are_not_even_put_together(custom: Custom, monkeypatch: pytest.MonkeyPatch):
    """Of 241B, they would not fit. InternLM2's q, k and v are put together of many runs."""
    source, cat = custom("internlm2-300m"), torch.cat
    put_together: list[int] = []

    def counting(tensors, *rest, **more):
        put_together.append(1)
        return cat(tensors, *rest, **more)

    monkeypatch.setattr(mapped_tensors.torch, "cat", counting)
    counts = []
    for layers in (1, 2):
        put_together.clear()
        assert internvl_bridge.check_load(source, layers=layers).ok
        counts.append(len(put_together))
    assert counts[0] < counts[1]


def test_the_first_model_is_gone_before_the_second_is_opened(hf: Path, monkeypatch: pytest.MonkeyPatch):
    """The command line looks for no cycles while it works."""
    models: list[weakref.ref] = []

    def opening_one(model, layers):
        assert [ref() for ref in models if ref() is not None] == []
        opened = opening.open_checkpoint_model(model, layers)
        models.append(weakref.ref(opened.model))
        return opened

    monkeypatch.setattr(load_check, "open_checkpoint_model", opening_one)
    gc.disable()
    try:
        assert internvl_bridge.check_load(hf, against=hf.parent / "qwen2-300m").ok
    finally:
        gc.enable()
    assert len(models) == 2


def test_a_processor_that_makes_other_inputs_is_noticed(hf: Path, tmp_path: Path):
    shutil.copytree(hf, tmp_path / "other")
    with (tmp_path / "other" / "chat_template.jinja").open("a") as template:
        template.write("Well,")
    found = internvl_bridge.check_load(hf, against=tmp_path / "other")
    assert found.against is not None
    assert (found.against.largest, found.against.same_inputs, found.loads, found.ok) == (0.0, False, True, False)
    assert "other inputs of the same prompt" in found._repr_html_()


def test_a_cast_agrees_with_its_source_in_either_order(hf: Path, tmp_path: Path):
    internvl_bridge.cast(hf, tmp_path / "wide", dtype="float32")
    for one, other in ((hf, tmp_path / "wide"), (tmp_path / "wide", hf)):
        found = internvl_bridge.check_load(one, against=other)
        assert found.against is not None
        assert found.against.largest > 0
        assert found.ok


def test_what_the_other_one_raises_is_said_of_the_other_one(hf: Path, monkeypatch: pytest.MonkeyPatch):
    def failing(model, layers):
        if model.directory != hf:
            raise RuntimeError("no such thing")
        return opening.open_checkpoint_model(model, layers)

    monkeypatch.setattr(load_check, "open_checkpoint_model", failing)
    found = internvl_bridge.check_load(hf, against=hf.parent / "qwen2-300m")
    assert (found.error, found.against_error, found.loads) == (None, "RuntimeError: no such thing", True)
    assert not found.ok


def test_what_transformers_raises_is_an_answer(hf: Path):
    edit_json(hf / "config.json", lambda config: config.update(quantization_config={"quant_method": "gptq", "bits": 4}))
    result = CliRunner().invoke(app, ["check-load", str(hf)])
    assert result.exit_code == 1
    assert f"internvl-bridge doctor {hf}" in result.stdout
    assert "Error:" in result.stdout


def test_what_does_not_fit_is_refused_before(hf: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(load_check, "_available_memory", lambda: 300_000)
    with pytest.raises(OptionError, match="--layers 2"):
        internvl_bridge.check_load(hf)
    assert internvl_bridge.check_load(hf, layers=1).ok
    assert internvl_bridge.check_load(hf, meta=True).ok


def test_options_that_contradict_each_other(hf: Path):
    with pytest.raises(OptionError, match="nothing to compare"):
        internvl_bridge.check_load(hf, against=hf, meta=True)
    with pytest.raises(OptionError, match="0 is not a number of layers"):
        internvl_bridge.check_load(hf, layers=0)


def test_the_command_prints_it(hf: Path):
    result = CliRunner().invoke(app, ["check-load", str(hf), "--against", str(hf.parent / "qwen2-300m")])
    assert result.exit_code == 0, result.output
    assert "73 of 73 parameters are those of the files" in result.stdout
    assert "every logit is equal bit for bit" in result.stdout
    printed = CliRunner().invoke(app, ["check-load", str(hf), "--json"])
    assert json.loads(printed.stdout)["result"]["ok"] is True
