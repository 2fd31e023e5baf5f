"""Whatever is not fully understood is refused by name, with the remedy, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import edit_json, rewrite
from typer.testing import CliRunner

import internvl_bridge
from internvl_bridge.cli.app import app

Custom = Callable[[str], Path]


def refuse(command: str, source: Path, *words: str, options: tuple[str, ...] = ()) -> str:
    """Run a conversion that must be refused, check how, and return the message."""
    output = source.parent / "output"
    before = sorted(path.name for path in source.parent.iterdir())
    result = CliRunner().invoke(app, [command, str(source), str(output), *options])
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr
    assert sorted(path.name for path in source.parent.iterdir()) == before
    return result.stderr


@pytest.fixture
def hf(custom: Custom, tmp_path: Path) -> Path:
    internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "hf")
    return tmp_path / "hf"


def add(key: str, *shape: int):
    return lambda tensors: tensors.update({key: torch.zeros(*(shape or (2, 2)))})


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("vision_model.encoder.layers.0.attn.gate.weight", ["neither checkpoint format", "report it"]),
        ("mlp2.0.weight", ["Flash", "Use the release without"]),
        ("pooling_before_gating.in_proj_weight", ["Flash"]),
        ("gating.0.weight", ["Flash"]),
        (
            "language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
            ["LoRA", "internvl-bridge merge"],
        ),
        ("vision_model.base_model.model.encoder.layers.0.attn.qkv.base_layer.weight", ["LoRA"]),
        ("language_model.lm_head.qweight", ["quantised", "unquantised"]),
        ("vision_model.encoder.layers.0.attn.qkv.weight_scale", ["quantised", "only in the language model"]),
        ("language_model.lm_head.weight.absmax", ["quantised"]),
        (
            "language_model.model.layers.0.mlp.experts.gate_up_proj",
            ["all experts in one tensor", "Correct config.json"],
        ),
        ("module.mlp1.0.weight", ["training wrapper", "unwrapped"]),
        ("vision_model.encoder.layers.00.ls1", ["neither checkpoint format"]),
        ("mlp1.0.weight.", ["neither checkpoint format"]),
    ],
)
def test_a_foreign_tensor(key: str, words: list[str], custom: Custom):
    source = custom("qwen2-300m")
    rewrite(source, add(key))
    refuse("to-hf", source, key, *words)


@pytest.mark.parametrize(
    "key",
    [
        "vision_model.encoder.layers.1.norm2.bias",
        "vision_model.encoder.layers.0.attn.qkv.weight",
        "mlp1.3.bias",
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.1.self_attn.k_proj.bias",
    ],
)
def test_a_missing_tensor(key: str, custom: Custom):
    source = custom("qwen2-300m")
    rewrite(source, lambda tensors: tensors.pop(key))
    refuse("to-hf", source, key, "does not have it", "incomplete")


def test_a_missing_head_of_a_model_that_is_not_tied(custom: Custom):
    source = custom("qwen2-300m")
    rewrite(source, lambda tensors: tensors.pop("language_model.lm_head.weight"))
    refuse("to-hf", source, "language_model.lm_head.weight", "set tie_word_embeddings to true")
    edit_json(source / "config.json", lambda config: config["llm_config"].update(tie_word_embeddings=True))
    assert internvl_bridge.to_hf(source, source.parent / "hf").tensors == 72


def test_an_incomplete_group(hf: Path):
    key = "vision_tower.encoder.layer.1.attention.k_proj.weight"
    rewrite(hf, lambda tensors: tensors.pop(key))
    refuse("to-custom", hf, f"{key} is missing", "attn.qkv.weight is made of all 3", "incomplete")


def test_a_group_of_different_dtypes(hf: Path):
    key = "vision_tower.encoder.layer.1.attention.k_proj.weight"
    rewrite(hf, lambda tensors: tensors.update({key: tensors[key].float()}))
    refuse("to-custom", hf, key, "different dtypes", "one dtype")


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("mlp1.1.weight", (64, 127)),
        ("language_model.model.layers.0.self_attn.q_proj.weight", (48, 64)),
        ("vision_model.embeddings.position_embedding", (1, 18, 32)),
        ("vision_model.encoder.layers.0.attn.qkv.weight", (96, 31)),
        ("language_model.model.norm.weight", ()),
    ],
)
def test_a_shape_that_config_contradicts(key: str, shape: tuple[int, ...], custom: Custom):
    source = custom("qwen2-300m")
    rewrite(source, lambda tensors: tensors.update({key: torch.zeros(shape, dtype=torch.bfloat16)}))
    refuse("to-hf", source, key, str(list(shape)), "config.json describes")


def test_a_fused_tensor_that_cannot_be_divided(custom: Custom):
    source = custom("internlm2-300m")
    key = "language_model.model.layers.0.attention.wqkv.weight"
    rewrite(source, lambda tensors: tensors.update({key: torch.zeros(127, 64)}))
    refuse("to-hf", source, key, "[127, 64]", "heads=4, kv_heads=2, head_dim=16", "head counts")


@pytest.mark.parametrize(("section", "stack"), [("llm_config", "language_model"), ("vision_config", "vision_model")])
def test_a_layer_count_that_config_contradicts(section: str, stack: str, custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config["llm_config"].pop("layer_types"))
    edit_json(source / "config.json", lambda config: config[section].update(num_hidden_layers=3))
    refuse("to-hf", source, "has 2 layers", stack, "num_hidden_layers is 3")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_layer_count_that_the_types_of_layers_contradict(count: int, custom: Custom, hf: Path):
    types = ["full_attention"] * count
    words = (f"has {count} layer_types", "the language model has 2 layers", "Correct layer_types or num_hidden_layers")
    edit_json(hf / "config.json", lambda config: config["text_config"].update(layer_types=types))
    refuse("to-custom", hf, *words)
    source = custom("qwen3-300m")
    edit_json(source / "config.json", lambda config: config["llm_config"].update(layer_types=types))
    refuse("to-hf", source, *words)


def test_fewer_tiles_at_most_than_at_least(custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config.update(min_dynamic_patch=7, max_dynamic_patch=6))
    refuse("to-hf", source, "min_dynamic_patch 7", "max_dynamic_patch 6")


@pytest.mark.parametrize("section", ["llm_config", "vision_config"])
def test_an_absurd_layer_count_does_not_hang(section: str, custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config["llm_config"].pop("layer_types"))
    edit_json(source / "config.json", lambda config: config[section].update(num_hidden_layers=10**9))
    refuse("to-hf", source, "1000000000", "has only 65 tensors")
    edit_json(source / "config.json", lambda config: config[section].update(num_hidden_layers=10**12))
    refuse("to-hf", source, "1000000000000", "no model has there")


def test_an_absurd_number_of_experts_does_not_hang(custom: Custom):
    source = custom("qwen3moe-6b")
    edit_json(source / "config.json", lambda config: config["llm_config"].update(num_experts=10**9))
    refuse("to-hf", source, "2000000000", "has only 81 tensors")


def test_a_tensor_without_elements(custom: Custom):
    source = custom("internlm2-300m")
    key = "language_model.model.layers.0.attention.wqkv.weight"
    rewrite(source, lambda tensors: tensors.update({key: torch.zeros(3 * 10**8, 0)}))
    refuse("to-hf", source, key, "[300000000, 0]", "holds nothing")


def test_bias_that_config_denies(custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda config: config["vision_config"].update(qkv_bias=False))
    refuse("to-hf", source, "vision_model.encoder.layers.0.attn.qkv.bias", "describes a model without")


def test_an_unknown_language_model(custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda c: c["llm_config"].update(architectures=["FalconForCausalLM"]))
    refuse("to-hf", source, "FalconForCausalLM", "Known are", "Qwen3MoeForCausalLM")


def test_mono_internvl_is_named(custom: Custom):
    source = custom("internlm2-300m")
    edit_json(source / "config.json", lambda c: c["llm_config"].update(architectures=["InternLM2VEForCausalLM"]))
    refuse("to-hf", source, "Mono-InternVL")


def test_an_unknown_hf_text_model(hf: Path):
    edit_json(hf / "config.json", lambda config: config["text_config"].update(model_type="gemma3"))
    refuse("to-custom", hf, "gemma3", "Known are")


@pytest.mark.parametrize("stated", [True, False])
def test_the_old_pixel_shuffle(stated: bool, custom: Custom):
    source = custom("qwen2-300m")
    edit_json(
        source / "config.json",
        lambda config: config.update(ps_version="v1") if stated else config.pop("ps_version"),
    )
    refuse("to-hf", source, "ps_version 'v1'", "transposes the token grid", "Use a release with ps_version v2")


@pytest.mark.parametrize(
    ("model_type", "architecture"),
    [
        ("qwen2_vl", "Qwen2VLForConditionalGeneration"),
        ("interns1", "InternS1ForConditionalGeneration"),
        (None, None),
    ],
)
def test_another_model(model_type, architecture, custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "config.json", lambda c: c.update(model_type=model_type, architectures=[architecture]))
    refuse("to-hf", source, str(model_type), "not an InternVL model", "Intern-S1")


def test_a_directory_that_is_no_checkpoint(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    refuse("to-hf", tmp_path / "empty", "config.json", "does not exist")
    refuse("to-hf", tmp_path / "nowhere", "nowhere does not exist", "Check the name")
    refuse("to-hf", tmp_path / "my-lora", "my-lora does not exist", options=("--base", "base"))


def test_the_wrong_direction(hf: Path):
    refuse("to-hf", hf, "already in the HF format", "to-custom", "repair")


def test_the_wrong_direction_of_a_custom_checkpoint(custom: Custom):
    source = custom("qwen2-300m")
    refuse("to-custom", source, "is in the custom format", "to-hf")
    refuse("repair", source, "is in the custom format", "to-hf")


def test_mixed_spellings(hf: Path):
    def respell(tensors):
        tensors["model.multi_modal_projector.linear_1.bias"] = tensors.pop("multi_modal_projector.linear_1.bias")

    rewrite(hf, respell)
    refuse("to-custom", hf, "model.multi_modal_projector.linear_1.bias")


def test_a_tokenizer_that_does_not_know_the_image_token(custom: Custom):
    source = custom("qwen2-300m")
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json"):
        (source / name).unlink()
    refuse("to-hf", source, "<IMG_CONTEXT>", "Copy tokenizer.json")


@pytest.mark.parametrize("token", ["<img>", "</img>"])
def test_a_tokenizer_that_does_not_know_the_tokens_around_images(token: str, custom: Custom):
    source = custom("qwen2-300m")
    for name in ("tokenizer.json", "tokenizer_config.json", "added_tokens.json"):
        (source / name).write_text((source / name).read_text().replace(f'"{token}"', '"<other>"'))
    refuse("to-hf", source, f"an id for {token}", "Copy tokenizer.json")


@pytest.mark.parametrize("word", ["rope_theta", "num_experts"])
def test_a_config_edited_in_one_of_two_spellings(word: str, custom: Custom, tmp_path: Path):
    internvl_bridge.to_hf(custom("qwen3moe-6b"), tmp_path / "hf")
    edit_json(tmp_path / "hf" / "config.json", lambda config: config["text_config"].update({word: 5}))
    refuse("to-custom", tmp_path / "hf", f"says twice what {word} is", "Set both to the value")


def test_tokenizer_files_that_disagree(custom: Custom):
    source = custom("qwen2-300m")
    edit_json(source / "added_tokens.json", lambda tokens: tokens.update({"<IMG_CONTEXT>": 77}))
    refuse("to-hf", source, "disagree", "added_tokens.json says 77", "tokenizer.json says 590")


def test_a_token_id_beyond_the_embeddings(custom: Custom):
    source = custom("internlm2-300m")
    (source / "tokenizer_config.json").unlink()
    edit_json(source / "added_tokens.json", lambda tokens: tokens.update({"<IMG_CONTEXT>": 600}))
    refuse("to-hf", source, "at id 600", "only 600 embeddings")


def test_pickled_weights_that_are_none(custom: Custom):
    source = custom("qwen2-300m")
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    refuse("to-hf", source, "pytorch_model.bin is not a valid file of torch.save", "save or download it again")


def test_stale_shards(custom: Custom):
    source = custom("qwen2-300m")
    (source / "model-00001-of-00002.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    refuse("to-hf", source, "model-00001-of-00002.safetensors", "does not belong", "Move the stale files away")


def test_an_output_that_exists(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "precious").write_text("data")
    refuse("to-hf", source, "output exists", "Choose another output")
    assert (tmp_path / "output" / "precious").read_text() == "data"


def test_a_left_over_partial_output(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    (tmp_path / "output.partial").mkdir()
    (tmp_path / "output.partial" / "precious").write_text("data")
    refuse("to-hf", source, "output.partial", "is not an unfinished output of this program", "Move it away")
    assert (tmp_path / "output.partial" / "precious").read_text() == "data"


def test_a_reference_in_the_wrong_format(custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    result = CliRunner().invoke(app, ["to-hf", str(source), str(tmp_path / "o"), "--reference", str(source)])
    assert result.exit_code == 2
    assert "is not in the hf format" in result.stderr


def test_a_size_without_its_unit_is_not_taken_for_bytes(custom: Custom, tmp_path: Path):
    source, output = str(custom("qwen2-300m")), str(tmp_path / "output")
    for command in (["to-hf", source, output], ["plan", source]):
        result = CliRunner().invoke(app, [*command, "--max-shard-size", "5"])
        assert result.exit_code == 2
        assert "--max-shard-size 5 means files of 5 B each. Give the unit, as in 5GB" in result.stderr
    result = CliRunner().invoke(app, ["to-hf", source, output, "--max-shard-size", "90KB", "--accept", "small-shards"])
    assert result.exit_code == 0, result.stderr


def test_what_cannot_be_accepted_is_refused(custom: Custom, tmp_path: Path):
    source, output = str(custom("qwen2-300m")), str(tmp_path / "output")
    result = CliRunner().invoke(app, ["to-hf", source, output, "--accept", "anything"])
    assert result.exit_code == 2
    assert "'anything' is not a name that can be accepted." in result.stderr
    assert "small-shards" in result.stderr


@pytest.mark.parametrize("size", ["0", "ten", "5 parsecs", "-1"])
def test_a_size_that_is_none(size: str, custom: Custom, tmp_path: Path):
    source = custom("qwen2-300m")
    result = CliRunner().invoke(app, ["to-hf", str(source), str(tmp_path / "o"), "--max-shard-size", size])
    assert result.exit_code == 2
    assert "5GB" in result.stderr


@pytest.mark.parametrize("scaling", [{"type": "linear", "factor": 2.0}, {"type": "yarn", "factor": 2.0}])
def test_a_scaling_that_phi3_does_not_know(scaling, custom: Custom):
    source = custom("phi3-300m")
    edit_json(source / "config.json", lambda config: config["llm_config"].update(rope_scaling=scaling))
    refuse("to-hf", source, "rope_scaling", "Phi-3", "longrope")


@pytest.mark.parametrize("name", ["tokenizer.json", "internvl_bridge.json", "preprocessor_config.json"])
def test_a_link_into_a_cache_whose_file_is_gone(name: str, custom: Custom):
    source = custom("qwen2-300m")
    (source / name).unlink(missing_ok=True)
    (source / name).symlink_to("../blobs/gone")
    refuse("to-hf", source, name, "and nothing is there", "Get it again")


@pytest.mark.parametrize("token", [[1, 2], -1, "590", True, 2**31])
def test_an_image_token_id_that_is_none(token, hf: Path):
    edit_json(hf / "config.json", lambda config: config.update(image_token_id=token))
    refuse("to-custom", hf, "image_token_id")


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_a_tokenizer_directory_that_is_none(custom: Custom, tmp_path: Path, kind: str):
    place = tmp_path / "elsewhere"
    if kind == "file":
        place.touch()
    with pytest.raises(internvl_bridge.BridgeError, match="For the tokenizer: "):
        internvl_bridge.to_hf(custom("qwen2-300m"), tmp_path / "output", tokenizer=place)
