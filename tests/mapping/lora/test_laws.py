"""A converted adapter changes a converted model as the adapter changes the model, for every family and direction."""

import json
from math import sqrt
from pathlib import Path

import pytest
import torch
from adapters import Config, P, changes, check_targets, lora_config, random_adapter, weights_of, whole
from state_dicts import MOE, Tensors, assert_same, config_of, custom_of
from support import DATA, NAMES, copy_custom

from internvl_bridge import convert_adapter_state_dict, convert_state_dict, to_hf
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.lora.lifting import NOTHING
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.metadata.adapter_config import checked_config
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.json_files import JsonFile
from internvl_bridge.planning.adapter_plan import AdapterTarget, plan_adapter, read_packed

GPT = "gptoss-300m"
WAYS = [("custom", "5"), ("custom", "4"), ("5", "custom"), ("4", "custom"), ("l1", "custom")]


def convert(tensors: Tensors, config: Config, name: str, way: tuple[str, str]) -> tuple[Tensors, Config]:
    direction = "to-custom" if way[1] == "custom" else "to-hf"
    version = 4 if "4" in way else 5
    return convert_adapter_state_dict(tensors, config, direction, config=config_of(name), transformers=version)


def converted_changes(before: Tensors, name: str, way: tuple[str, str]) -> Tensors:
    """What a change of a model becomes, moved as its weights are."""
    if way[1] == "custom":
        return convert_state_dict(before, "to-custom", config=config_of(name), tied="keep")
    experts = "fused" if way[1] == "5" and name == MOE else "split"
    return convert_state_dict(before, "to-hf", config=config_of(name), layout="l2", experts=experts)


def is_turned(name: str, spelling: str) -> bool:
    """Whether PEFT takes the experts of GPT-OSS as transposed: with transformers 5."""
    return name == GPT and spelling == "5"


def check_changes(tensors: Tensors, config: Config, name: str, way: tuple[str, str]) -> tuple[Tensors, Config]:
    made, new = convert(tensors, config, name, way)
    before = changes(tensors, config, weights_of(name, way[0]), transposed=is_turned(name, way[0]))
    after = changes(made, new, weights_of(name, way[1]), transposed=is_turned(name, way[1]))
    assert_same(after, converted_changes(before, name, way))
    check_targets(made, new)
    return made, new


def trainable(key: str) -> bool:
    """Routers of experts cannot be changed with transformers 5."""
    return not key.endswith((".mlp.gate.weight", ".mlp.router.weight"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_every_linear_layer_changes_alike(name: str, way: tuple[str, str]):
    torch.manual_seed(0)
    tensors = random_adapter(weights_of(name, way[0]), trainable)
    check_changes(tensors, lora_config(), name, way)


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-6b", MOE])
@pytest.mark.parametrize("way", [("custom", "4"), ("4", "custom"), ("l1", "custom"), ("custom", "5")], ids=str)
def test_some_parts_of_what_is_fused_and_other_ranks(name: str, way: tuple[str, str]):
    torch.manual_seed(1)

    def choose(key: str) -> bool:
        return trainable(key) and not key.endswith(("k_proj.weight", "1.gate_proj.weight", "fc1.weight"))

    def rank_of(key: str) -> int:
        return 4 if ".q_proj" in key or ".qkv" in key or "up_proj" in key else 2

    config = lora_config(
        rank_pattern={".*q_proj": 4, "qkv": 4, r"wqkv": 4, "up_proj": 4},
        alpha_pattern={"q_proj": 8, "(w)?qkv": 8, ".*up_proj": 8},
    )
    if name == "internlm2-6b" and way[0] == "custom":
        tensors = random_adapter(weights_of(name, way[0]), choose, lambda key: 4 if "qkv" in key else 2)
    else:
        tensors = random_adapter(weights_of(name, way[0]), choose, rank_of)
    check_changes(tensors, config, name, way)


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m", GPT])
def test_equal_parts_with_rslora_are_scaled_as_before(name: str):
    torch.manual_seed(2)
    tensors = random_adapter(weights_of(name, "5"), trainable)
    made, config = convert(tensors, lora_config(use_rslora=True, lora_alpha=3), name, ("5", "custom"))
    key = "vision_model.encoder.layers.0.attn.qkv"
    [alpha] = [value for pattern, value in config["alpha_pattern"].items() if pattern.replace("\\", "") == key]
    assert made[f"{P}{key}.lora_A.weight"].shape[0] == 6
    assert alpha == pytest.approx(3 * sqrt(3))
    assert alpha / sqrt(6) == pytest.approx(3 / sqrt(2), rel=1e-15)


@pytest.mark.parametrize("way", [("4", "custom"), ("l1", "custom")], ids=str)
def test_parts_that_are_scaled_by_powers_of_two_stay_exact(way: tuple[str, str]):
    torch.manual_seed(3)
    tensors = random_adapter(weights_of("qwen2-300m", way[0]))
    config = lora_config(alpha_pattern={"q_proj": 8, "v_proj": 1})
    check_changes(tensors, config, "qwen2-300m", way)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", [("5", "custom"), ("4", "custom"), ("custom", "5"), ("custom", "4")], ids=str)
def test_there_and_back_gives_the_same_factors(name: str, way: tuple[str, str]):
    torch.manual_seed(4)
    tensors = random_adapter(weights_of(name, way[0]), trainable)
    made, config = convert(tensors, lora_config(), name, way)
    back, again = convert(made, config, name, (way[1], way[0]))
    assert_same(back, tensors)
    assert not again.get("rank_pattern")


@pytest.mark.parametrize("stack", ["both", "gate_up_proj", "down_proj"])
@pytest.mark.parametrize("name", [MOE, GPT])
@pytest.mark.parametrize("way", [("5", "custom"), ("4", "custom"), ("custom", "5"), ("custom", "4")], ids=str)
def test_experts_in_one_parameter_change_alike(name: str, way: tuple[str, str], stack: str):
    torch.manual_seed(5)
    if name == MOE and way[0] != "5":
        pytest.skip("there, each expert has modules of its own")
    weights = weights_of(name, way[0])
    named = ["gate_up_proj", "down_proj"] if stack == "both" else [stack]
    config = lora_config(target_modules=[], target_parameters=[f"mlp.experts.{part}" for part in named])
    tensors: Tensors = {}
    for key, weight in weights.items():
        if key.endswith(tuple(f".experts.{part}" for part in named)):
            depth = len(named) - 1 - named.index(key.rpartition(".")[2])
            place = f"{P}{key.rpartition('.')[0]}{'.base_layer' * depth}"
            experts, rows, columns = weight.shape
            inside, outside = (rows, columns) if is_turned(name, way[0]) else (columns, rows)
            tensors[f"{place}.lora_A.weight"] = whole(2 * experts, inside)
            tensors[f"{place}.lora_B.weight"] = whole(outside, 2 * experts)
    made, new = check_changes(tensors, config, name, way)
    back, _ = convert(made, new, name, (way[1], way[0]))
    assert_same(back, tensors)


@pytest.mark.parametrize("name", ["qwen2-300m", "internlm2-300m"])
@pytest.mark.parametrize("way", [("custom", "5"), ("5", "custom")], ids=str)
def test_biases_and_magnitudes_go_with_their_rows(name: str, way: tuple[str, str]):
    torch.manual_seed(6)
    weights = weights_of(name, way[0])
    tensors = random_adapter(weights)
    vectors: Tensors = {}
    for key in [key for key in tensors if key.endswith("lora_B.weight")]:
        module, rows = key.removeprefix(P).removesuffix(".lora_B.weight"), tensors[key].shape[0]
        tensors[f"{P}{module}.lora_B.bias"] = vectors[f"{module}.weight"] = whole(rows)
        tensors[f"{P}{module}.lora_magnitude_vector"] = 2 * vectors[f"{module}.weight"]
    made, _ = convert(tensors, lora_config(use_dora=True, lora_bias=True), name, way)
    columns = {key: vectors[key][:, None].expand(w.shape) if key in vectors else w for key, w in weights.items()}
    expected = converted_changes({key: t.float().contiguous() for key, t in columns.items()}, name, way)
    for key in made:
        if key.endswith(("lora_B.bias", "lora_magnitude_vector")):
            module = key.removeprefix(P).partition(".lora_")[0]
            factor = 2 if key.endswith("vector") else 1
            assert torch.equal(made[key], factor * expected[f"{module}.weight"][:, 0])


def test_a_bias_of_a_part_without_columns_is_kept():
    b = torch.zeros(96, 2)
    b[:32, 0], b[64:, 1] = 1, 1
    module = f"{P}vision_model.encoder.layers.0.attn.qkv"
    tensors = {
        f"{module}.lora_A.weight": whole(2, 32),
        f"{module}.lora_B.weight": b,
        f"{module}.lora_B.bias": whole(96),
    }
    made, _ = convert(tensors, lora_config(lora_bias=True), "qwen2-300m", ("custom", "5"))
    assert sum(key.endswith("lora_B.bias") for key in made) == 3


def test_patterns_of_transformers_own_adapters_are_those_of_its_modules():
    tensors = random_adapter(weights_of("qwen2-300m", "l1"), lambda key: "q_proj" in key)
    config = lora_config(alpha_pattern={r"model\.language_model\.layers\.0\.self_attn\.q_proj": 32})
    _, made = convert(tensors, config, "qwen2-300m", ("l1", "custom"))
    assert made["alpha_pattern"] == {r"language_model\.model\.layers\.0\.self_attn\.q_proj": 32}


def test_square_experts_of_gpt_oss_are_told():
    config = config_of(GPT)
    config["llm_config"]["intermediate_size"] = config["llm_config"]["hidden_size"]
    base = describe(JsonFile(Path("config.json"), "", config), custom_of(GPT))
    place, size = f"{P}model.language_model.layers.0.mlp.experts", config["llm_config"]["hidden_size"]
    count = 2 * config["llm_config"]["num_local_experts"]
    shapes = {f"{place}.lora_A.weight": (count, size), f"{place}.lora_B.weight": (size, count)}
    specs = {key: TensorSpec("F32", shape) for key, shape in shapes.items()}
    checked = checked_config(JsonFile(Path("x"), "", lora_config(target_parameters=["experts.down_proj"])))
    plan = plan_adapter(specs, checked, base, AdapterTarget(Format.HF, Format.CUSTOM), lambda _, __: NOTHING)
    assert any("It is taken for one of transformers 5 (--transformers)" in note for note in plan.notes)


def test_what_is_replaced_as_a_whole_moves_as_weights_do():
    custom, hf = weights_of("internlm2-300m", "custom"), weights_of("internlm2-300m", "5")
    for source, target, way in ((custom, hf, ("custom", "5")), (hf, custom, ("5", "custom"))):
        saved = {key: t for key, t in source.items() if "vision" in key or "mlp1" in key or "projector" in key}
        config = lora_config(modules_to_save=["vision_tower"])
        made, new = convert({P + key: tensor for key, tensor in saved.items()}, config, "internlm2-300m", way)
        expected = {key: t for key, t in target.items() if "vision" in key or "mlp1" in key or "projector" in key}
        assert_same(made, {P + key: tensor for key, tensor in expected.items()})
        modules = (
            ["vision_model", "mlp1"] if way[1] == "custom" else ["model.vision_tower", "model.multi_modal_projector"]
        )
        assert new["modules_to_save"] == sorted(modules)


def test_embeddings_convolutions_and_tokens_are_renamed():
    patch, tokens = "vision_model.embeddings.patch_embedding", "language_model.model.tok_embeddings"
    weights = weights_of("internlm2-300m", "custom")
    vocabulary, hidden = weights[f"{tokens}.weight"].shape
    sizes = weights[f"{patch}.weight"].shape
    tensors = {
        f"{P}{patch}.lora_A.weight": whole(2, *sizes[1:]),
        f"{P}{patch}.lora_B.weight": whole(sizes[0], 2, 1, 1),
        f"{P}{tokens}.lora_embedding_A": whole(2, vocabulary),
        f"{P}{tokens}.lora_embedding_B": whole(hidden, 2),
        f"{P}{tokens}.base_layer.weight": whole(vocabulary, hidden),
        f"{P}language_model.output.token_adapter.trainable_tokens_delta": whole(3, hidden),
    }
    config = lora_config(trainable_token_indices={"output": [1, 2, 3]})
    made, new = convert(tensors, config, "internlm2-300m", ("custom", "5"))
    words = {
        patch: "model.vision_tower.embeddings.patch_embeddings.projection",
        tokens: "model.language_model.embed_tokens",
    }
    expected = {
        key.replace(patch, words[patch]).replace(tokens, words[tokens]).replace("language_model.output", "lm_head"): t
        for key, t in tensors.items()
    }
    assert_same(made, expected)
    assert new["target_modules"] == sorted(words.values())
    assert new["trainable_token_indices"] == {"lm_head": [1, 2, 3]}
    assert new["modules_to_save"] is None


def sample(name: str) -> tuple[Tensors, Config]:
    from safetensors.torch import load_file

    directory = DATA / "adapters" / "samples" / name
    config = json.loads((directory / "adapter_config.json").read_text())
    return load_file(directory / "adapter_model.safetensors"), config


@pytest.mark.parametrize(
    ("name", "base", "way"),
    [
        ("bias_all", "qwen2-300m", ("4", "custom")),
        ("moe_all_linear", MOE, ("4", "custom")),
        ("tf_add_adapter", "qwen2-300m", ("l1", "custom")),
        ("mod_save_linear", "qwen2-300m", ("5", "custom")),
        ("mod_save_tied", "qwen3-300m-tied", ("5", "custom")),
        ("tok_idx", "qwen2-300m", ("5", "custom")),
        ("internlm2-300m-all_linear", "internlm2-300m", ("custom", "5")),
        ("mlp1", "qwen2-300m", ("custom", "5")),
    ],
)
def test_what_peft_saved_comes_back_as_it_was(name: str, base: str, way: tuple[str, str]):
    tensors, config = sample(name)
    made, new = convert(tensors, config, base, way)
    back, _ = convert(made, new, base, (way[1], "4" if way[0] == "l1" else way[0]))
    if name == "tf_add_adapter":  # its keys are those that PEFT writes from then on
        new_names = {
            "language_model.model.": "model.language_model.",
            "base_model.model.vision_tower.": "base_model.model.model.vision_tower.",
        }
        for old, new_name in new_names.items():
            tensors = {key.replace(old, new_name): tensor for key, tensor in tensors.items()}
    assert_same(back, tensors)


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_converted_adapter_is_understood_as_one_of_its_base(way: tuple[str, str]):
    torch.manual_seed(7)
    tensors = random_adapter(weights_of(MOE, way[0]), trainable)
    specs = {key: TensorSpec("F32", tuple(tensor.shape)) for key, tensor in tensors.items()}
    base = describe(JsonFile(Path("config.json"), "", config_of(MOE)), custom_of(MOE))
    config = checked_config(JsonFile(Path("adapter_config.json"), "", lora_config()))
    formats = [Format.CUSTOM if part == "custom" else Format.HF for part in way]
    target = AdapterTarget(formats[0], formats[1], transformers=4 if "4" in way else 5)
    plan = plan_adapter(specs, config, base, target, lambda _, __: NOTHING)
    packed = plan.packed
    made = {key: TensorSpec("F32", recipe.shape) for key, recipe in packed.factors.items()}
    found = read_packed(plan, made, config, base, target)
    named = {f"{name}.weight" for name in packed.modules} | {*packed.parameters}
    assert {matrix.key for matrix in found.matrices} == named


def test_an_hf_base_of_several_custom_classes_is_told(tmp_path: Path):
    to_hf(copy_custom("internlm2-300m", tmp_path / "custom"), tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    base = describe(JsonFile(Path("config.json"), "", config))
    tensors = random_adapter(weights_of("internlm2-300m", "5"))
    specs = {key: TensorSpec("F32", tuple(tensor.shape)) for key, tensor in tensors.items()}
    checked = checked_config(JsonFile(Path("adapter_config.json"), "", lora_config()))
    plan = plan_adapter(specs, checked, base, AdapterTarget(Format.HF, Format.CUSTOM), lambda _, __: NOTHING)
    assert any("It is taken for Llama. If it is one of the others" in note for note in plan.notes)
