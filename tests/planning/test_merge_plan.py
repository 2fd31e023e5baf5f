"""A merge changes a checkpoint as the adapter changes its own base, whatever format either of them has."""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
from adapters import Config, P, changes, lora_config, random_adapter, weights_of, whole
from state_dicts import MOE, Tensors, assert_same, config_of, custom_of
from support import NAMES

from internvl_bridge import convert_state_dict
from internvl_bridge.checkpoint.lora_tensors import taken
from internvl_bridge.errors import ContradictionError, UnknownKeyError, UnsupportedModelError
from internvl_bridge.mapping.families import Experts
from internvl_bridge.mapping.lora.changes import TensorChange
from internvl_bridge.mapping.plan import TensorSpec, identity
from internvl_bridge.mapping.spellings import CUSTOM, L1, L2, KeySpelling
from internvl_bridge.mapping.tied_head import tied_head
from internvl_bridge.metadata.adapter_config import checked_config
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.json_files import JsonFile
from internvl_bridge.metadata.trained_lora import config_without_file, trained_scaling
from internvl_bridge.planning.merge_plan import BaseModel, MergePlan, StatedAdapter, plan_extraction, plan_merge
from internvl_bridge.planning.output_head import OutputHead
from internvl_bridge.planning.tensor_plan import ModelPlan

GPT = "gptoss-300m"
KEYS = {"custom": CUSTOM, "l1": KeySpelling(L1), "5": KeySpelling(L2, Experts.FUSED)}
LAYER = "language_model.model.layers.0"


def base_of(name: str, spelling: str = "custom", head: OutputHead = OutputHead.OWN) -> BaseModel:
    specs = {key: TensorSpec("BF16", tuple(tensor.shape)) for key, tensor in weights_of(name, spelling).items()}
    description = describe(JsonFile(Path("config.json"), "", config_of(name)), custom_of(name))
    return BaseModel(
        description,
        specs,
        KEYS[spelling],
        head,
        tied_head(description.family, description.dims.text, KEYS[spelling]),
    )


def stated(tensors: Tensors, config: Config, name: str = "lora") -> StatedAdapter:
    specs = {key: TensorSpec("F32", tuple(tensor.shape)) for key, tensor in tensors.items()}
    checked = checked_config(JsonFile(Path("adapter_config.json"), "", config))
    return StatedAdapter(name, specs, checked, checked.scaling_of)


def applied(change: TensorChange, tensors: Tensors, shape: tuple[int, ...]) -> torch.Tensor:
    """What ``change`` makes of zeros."""
    made = torch.zeros(shape).flatten()
    for part in change.replaced:
        made[part.start : part.stop] = tensors[part.key].flatten()[part.first :][: part.stop - part.start]
    rows = made.view(-1, 1 if len(shape) == 1 else shape[-1] if len(shape) == 3 else prod(shape[1:]))
    for row in change.rows:
        b = taken(tensors[row.b.key], row.b)
        rows[row.row : row.row + len(b)] += row.scale * (b if row.a is None else b @ taken(tensors[row.a.key], row.a))
    return made.view(shape)


def check(plan: MergePlan, tensors: Tensors, expected: Tensors) -> None:
    """Check that ``plan``, of one adapter, changes exactly what is ``expected``."""
    changed = {key: tensor for key, tensor in expected.items() if tensor.any()}
    shapes = {key: tuple(tensor.shape) for key, tensor in expected.items()}
    made = {key: applied(change, tensors, shapes[key]) for key, [(_, change)] in plan.changes.items()}
    assert_same(made, changed)


def moved(before: Tensors, name: str, target: str) -> Tensors:
    """A change of a model's weights, as the weights are moved."""
    if target == "custom":
        return convert_state_dict(before, "to-custom", config=config_of(name), tied="keep")
    layout, experts = ("l1", "split") if target == "l1" else ("l2", "fused" if name == MOE else "split")
    return convert_state_dict(before, "to-hf", config=config_of(name), layout=layout, experts=experts)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "way", [("custom", "custom"), ("4", "custom"), ("5", "custom"), ("custom", "l1"), ("custom", "5")], ids=str
)
def test_a_base_of_any_format_changes_as_the_adapters_own(name: str, way: tuple[str, str]):
    torch.manual_seed(0)
    tensors = random_adapter(weights_of(name, way[0]))
    config = lora_config(alpha_pattern={"(q_proj|w1|fc1)": 6}, use_rslora=False)
    before = changes(tensors, config, weights_of(name, way[0]))
    expected = before if way[0] == way[1] else moved(before, name, way[1])
    plan = plan_merge(base_of(name, way[1]), [stated(tensors, config)])
    check(plan, tensors, expected)
    assert not plan.unties
    assert len(plan.modules) == len(tensors) / 2


@pytest.mark.parametrize("way", [("4", "custom"), ("custom", "l1")], ids=str)
def test_some_parts_of_what_is_fused_change_alone(way: tuple[str, str]):
    torch.manual_seed(4)

    def choose(key: str) -> bool:
        return key.endswith(("attention.q_proj.weight", "attention.v_proj.weight", "qkv.weight", "mlp1.1.weight"))

    tensors = random_adapter(weights_of("qwen2-300m", way[0]), choose)
    before = changes(tensors, lora_config(), weights_of("qwen2-300m", way[0]))
    plan = plan_merge(base_of("qwen2-300m", way[1]), [stated(tensors, lora_config())])
    check(plan, tensors, moved(before, "qwen2-300m", way[1]))


@pytest.mark.parametrize("name", [MOE, GPT])
@pytest.mark.parametrize("target", ["custom", "5"])
def test_experts_in_one_parameter(name: str, target: str):
    torch.manual_seed(1)
    weights = weights_of(name, "5")
    tensors: Tensors = {}
    for key in (key for key in weights if key.endswith(("experts.gate_up_proj", "experts.down_proj"))):
        experts, rows, columns = weights[key].shape
        place = P + key.rpartition(".")[0] + (".base_layer" if "gate_up" in key else "")
        inside, outside = (rows, columns) if name == GPT else (columns, rows)
        tensors[f"{place}.lora_A.weight"] = whole(2 * experts, inside)
        tensors[f"{place}.lora_B.weight"] = whole(outside, 2 * experts)
    named = ["experts.gate_up_proj", "experts.down_proj"]
    config = lora_config(target_modules=[], target_parameters=named)
    before = changes(tensors, config, weights, transposed=name == GPT)
    plan = plan_merge(base_of(name, target), [stated(tensors, config)])
    check(plan, tensors, before if target == "5" else moved(before, name, target))


def test_biases_of_factors_are_scaled_and_rows_have_their_magnitudes():
    torch.manual_seed(2)
    tensors = random_adapter(weights_of("qwen2-300m", "5"), lambda key: "vision" in key and "_proj.weight" in key)
    for key in [key for key in tensors if key.endswith("lora_B.weight")]:
        module, rows = key.removesuffix(".lora_B.weight"), len(tensors[key])
        tensors |= {f"{module}.lora_B.bias": whole(rows), f"{module}.lora_magnitude_vector": whole(rows)}
    plan = plan_merge(base_of("qwen2-300m"), [stated(tensors, lora_config(lora_bias=True, use_dora=True))])
    [(_, weight)] = plan.changes["vision_model.encoder.layers.1.attn.qkv.weight"]
    [(_, bias)] = plan.changes["vision_model.encoder.layers.1.attn.qkv.bias"]
    module = f"{P}model.vision_tower.encoder.layer.1.attention"
    parts = [f"{module}.{letter}_proj" for letter in "qkv"]
    assert torch.equal(
        torch.cat([taken(tensors[row.magnitude.key], row.magnitude) for row in weight.rows if row.magnitude])[:, 0],
        torch.cat([tensors[f"{part}.lora_magnitude_vector"] for part in parts]),
    )
    expected = 2 * torch.cat([tensors[f"{part}.lora_B.bias"] for part in parts])
    assert torch.equal(applied(bias, tensors, tuple(expected.shape)), expected)


@pytest.mark.parametrize("has_magnitude", [True, False])
def test_embeddings_a_convolution_and_trained_tokens(has_magnitude: bool):
    torch.manual_seed(3)
    weights = weights_of("internlm2-300m", "custom")
    patch, embed = "vision_model.embeddings.patch_embedding", "language_model.model.tok_embeddings"
    (count, *inside), (words, hidden) = weights[f"{patch}.weight"].shape, weights[f"{embed}.weight"].shape
    tensors = {
        f"{P}{patch}.lora_A.weight": whole(2, *inside),
        f"{P}{patch}.lora_B.weight": whole(count, 2, 1, 1),
        f"{P}{patch}.lora_B.bias": whole(count),
        f"{P}{patch}.lora_magnitude_vector": whole(1, count, 1, 1),
        f"{P}{embed}.lora_embedding_A": whole(2, words),
        f"{P}{embed}.lora_embedding_B": whole(hidden, 2),
        f"{P}{embed}.base_layer.weight": whole(words, hidden),
        f"{P}language_model.output.token_adapter.trainable_tokens_delta": whole(2, hidden),
    }
    if not has_magnitude:
        del tensors[f"{P}{patch}.lora_magnitude_vector"]
    config = lora_config(trainable_token_indices={"output": [7, 3]})
    plan = plan_merge(base_of("internlm2-300m"), [stated(tensors, config)])
    product = tensors[f"{P}{embed}.lora_embedding_B"] @ tensors[f"{P}{embed}.lora_embedding_A"]
    head = torch.zeros(words, hidden)
    head[[7, 3]] = tensors[f"{P}language_model.output.token_adapter.trainable_tokens_delta"]
    b, a = tensors[f"{P}{patch}.lora_B.weight"].flatten(1), tensors[f"{P}{patch}.lora_A.weight"].flatten(1)
    check(
        plan,
        tensors,
        {
            f"{embed}.weight": tensors[f"{P}{embed}.base_layer.weight"] + 2 * product.t(),
            "language_model.output.weight": head,
            f"{patch}.weight": 2 * (b @ a).view(count, *inside),
            f"{patch}.bias": 2 * tensors[f"{P}{patch}.lora_B.bias"],
        },
    )
    [(_, change)] = plan.changes[f"{patch}.weight"]
    magnitude = change.rows[0].magnitude
    assert (magnitude is not None) is has_magnitude
    if magnitude is not None:
        assert torch.equal(taken(tensors[magnitude.key], magnitude).flatten(), tensors[magnitude.key].flatten())


def test_tokens_of_a_list_are_those_of_the_embeddings():
    hidden = weights_of("qwen3-300m", "custom")["language_model.lm_head.weight"].shape[1]
    key = f"{P}language_model.model.embed_tokens.token_adapter.trainable_tokens_delta"
    plan = plan_merge(
        base_of("qwen3-300m"), [stated({key: whole(1, hidden)}, lora_config(trainable_token_indices=[5]))]
    )
    [(_, change)] = plan.changes["language_model.model.embed_tokens.weight"]
    assert (change.replaced[0].start, change.replaced[0].stop) == (5 * hidden, 6 * hidden)


def test_a_part_of_what_is_fused_can_be_replaced_as_a_whole():
    weights = weights_of("qwen2-300m", "5")
    name = "model.vision_tower.encoder.layer.0.attention.k_proj.weight"
    tensors = {P + name: whole(*weights[name].shape)}
    plan = plan_merge(base_of("qwen2-300m"), [stated(tensors, lora_config(modules_to_save=["k_proj"]))])
    before = {key: torch.zeros(weight.shape) for key, weight in weights.items()} | {name: tensors[P + name]}
    check(plan, tensors, moved(before, "qwen2-300m", "custom"))
    assert plan.modules == {}


@pytest.mark.parametrize("head", [OutputHead.SHARED, OutputHead.COPY])
def test_a_tied_model_is_untied_where_only_one_of_both_changes(head: OutputHead):
    words, hidden = weights_of("qwen3-300m", "custom")["language_model.lm_head.weight"].shape
    base = base_of("qwen3-300m", head=head)
    embed, output = base.tie.embeddings, base.tie.head
    module = P + embed.removesuffix(".weight")
    lora = {f"{module}.lora_embedding_A": whole(2, words), f"{module}.lora_embedding_B": whole(hidden, 2)}
    plan = plan_merge(base, [stated(lora, lora_config())])
    assert plan.unties
    assert [*plan.changes] == [embed]
    stored = {key: spec for key, spec in base.specs.items() if head is OutputHead.COPY or key != output}
    with_head = plan.plan_with_head(ModelPlan(identity(stored), head, base.tie, None))
    assert with_head.recipes[output].runs[0].key == (output if head is OutputHead.COPY else embed)
    assert "The model was tied" in plan.notes[0]
    together = plan_merge(base, [stated(lora, lora_config(ensure_weight_tying=True))])
    assert not together.unties
    assert output not in together.changes or together.changes[output] == together.changes[embed]
    assert (output in together.changes) is (head is OutputHead.COPY)
    alone = {
        f"{P}{output.removesuffix('weight')}lora_{name}.weight": whole(*s)
        for name, s in {"A": (2, hidden), "B": (words, 2)}.items()
    }
    assert [*plan_merge(base, [stated(alone, lora_config())]).changes] == [output]
    tokens = {f"{module}.token_adapter.trainable_tokens_delta": whole(1, hidden)}
    own = plan_merge(base, [stated(lora | alone, lora_config(ensure_weight_tying=True))])
    assert [len(change.rows) for _, change in own.changes[output]] == [1]
    config = lora_config(trainable_token_indices=[1])
    assert not plan_merge(base, [stated(tokens, config)]).unties
    both = plan_merge(base, [stated(tokens | alone, config)])
    assert both.unties
    assert [(bool(change.replaced), bool(change.rows)) for _, change in both.changes[output]] == [(0, 1), (1, 0)]


def test_square_experts_of_gpt_oss_are_told():
    base = base_of(GPT)
    config = config_of(GPT)
    config["llm_config"]["intermediate_size"] = size = config["llm_config"]["hidden_size"]
    description = describe(JsonFile(Path("config.json"), "", config), custom_of(GPT))
    key = f"{LAYER}.mlp.experts.down_proj"
    count = config["llm_config"]["num_local_experts"]
    specs = {**base.specs, key: TensorSpec("BF16", (count, size, size))}
    place = f"{P}model.language_model.layers.0.mlp.experts"
    tensors = {f"{place}.lora_A.weight": whole(2 * count, size), f"{place}.lora_B.weight": whole(size, 2 * count)}
    adapter = stated(tensors, lora_config(target_modules=[], target_parameters=["experts.down_proj"]))
    plan = plan_merge(replace(base, description=description, specs=specs), [adapter], 4)
    assert "It is taken for one of transformers 4 (--transformers)" in plan.notes[0]


def q_proj(config: Config, **more: torch.Tensor) -> StatedAdapter:
    """An adapter of one layer, with more tensors of it."""
    tensors = random_adapter(weights_of("qwen2-300m", "custom"), lambda key: f"{LAYER}.self_attn.q_proj" in key)
    return stated(tensors | {f"{P}{LAYER}.self_attn.q_proj.{end}": t for end, t in more.items()}, config, "the first")


def test_several_adapters_add_up_in_their_order():
    plan = plan_merge(base_of("qwen2-300m"), [q_proj(lora_config()), q_proj(lora_config(lora_alpha=6))])
    found = plan.changes[f"{LAYER}.self_attn.q_proj.weight"]
    assert [(number, change.rows[0].scale) for number, change in found] == [(0, 2), (1, 3)]
    assert [scaling.value for scaling in plan.modules[f"{LAYER}.self_attn.q_proj"]] == [2, 3]


EMBED, PATCH = "language_model.model.embed_tokens", "vision_model.embeddings.patch_embedding"


def dora_of_embeddings() -> Tensors:
    words, hidden = weights_of("qwen2-300m", "custom")[f"{EMBED}.weight"].shape
    shapes = {"lora_embedding_A": (2, words), "lora_embedding_B": (hidden, 2), "lora_magnitude_vector": (hidden,)}
    return {f"{P}{EMBED}.{end}": whole(*shape) for end, shape in shapes.items()}


def dora_of_another_convolution() -> Tensors:
    count, *inside = weights_of("qwen2-300m", "custom")[f"{PATCH}.weight"].shape
    shapes = {"lora_A.weight": (2, *inside), "lora_B.weight": (count, 2, 1, 1), "lora_magnitude_vector": (1, 7, 1, 1)}
    return {f"{P}{PATCH}.{end}": whole(*shape) for end, shape in shapes.items()}


@pytest.mark.parametrize(
    ("tensors", "config", "error", "says"),
    [
        (dora_of_embeddings, {"use_dora": True}, UnsupportedModelError, "with DoRA .*, which scales its columns"),
        (dora_of_another_convolution, {"use_dora": True}, ContradictionError, "not have one element for each of the"),
        (
            lambda: {f"{P}{LAYER}.mlp.other.lora_A.weight": whole(2, 2)},
            {},
            UnknownKeyError,
            "No tensor of the adapter fits",
        ),
        (
            lambda: {f"{P}{EMBED}.token_adapter.trainable_tokens_delta": whole(2, 64)},
            {"trainable_token_indices": {"lm_head": [1, 2]}},
            ContradictionError,
            "names 0 tokens",
        ),
        (
            lambda: {f"{P}{EMBED}.token_adapter.trainable_tokens_delta": whole(1, 64)},
            {"trainable_token_indices": [1_000_000]},
            ContradictionError,
            "names 1 tokens",
        ),
        (
            lambda: {
                f"{P}{LAYER}.self_attn.o_proj.lora_A.weight": whole(2, 64),
                f"{P}{LAYER}.self_attn.o_proj.lora_B.weight": whole(64, 2),
                f"{P}{LAYER}.self_attn.o_proj.lora_B.bias": whole(64),
            },
            {"lora_bias": True},
            ContradictionError,
            "to biases that the base model does not have",
        ),
    ],
    ids=["DoRA of embeddings", "magnitudes", "another model", "no tokens", "no such token", "no such bias"],
)
def test_what_cannot_be_merged_is_refused(
    tensors: Callable[[], Tensors], config: Config, error: type[Exception], says: str
):
    with pytest.raises(error, match=says):
        plan_merge(base_of("qwen2-300m"), [stated(tensors(), lora_config(**config))])


def test_adapters_that_cannot_be_merged_together_are_refused():
    rows = len(weights_of("qwen2-300m", "custom")[f"{LAYER}.self_attn.q_proj.weight"])
    dora = q_proj(lora_config(use_dora=True), lora_magnitude_vector=whole(rows))
    with pytest.raises(UnsupportedModelError, match=r"the first changes .*q_proj.weight with DoRA, .*Merge it alone"):
        plan_merge(base_of("qwen2-300m"), [dora, q_proj(lora_config())])
    size = len(weights_of("qwen2-300m", "custom")["mlp1.0.bias"])
    saved = [stated({f"{P}mlp1.0.bias": whole(size)}, lora_config(modules_to_save=["mlp1.0"]), name) for name in "ab"]
    with pytest.raises(UnsupportedModelError, match=r"a, b replace mlp1.0.bias. Only one of them can"):
        plan_merge(base_of("qwen2-300m"), saved)


def test_a_copy_of_the_base_beside_factors_of_embeddings_replaces_nothing():
    words, hidden = weights_of("qwen2-300m", "custom")[f"{EMBED}.weight"].shape
    shapes = {"lora_embedding_A": (2, words), "lora_embedding_B": (hidden, 2), "base_layer.weight": (words, hidden)}
    adapter = stated({f"{P}{EMBED}.{end}": whole(*shape) for end, shape in shapes.items()}, lora_config())
    same = plan_merge(base_of("qwen2-300m"), [adapter, adapter], same=lambda *_: True)
    assert [bool(change.replaced) for _, change in same.changes[f"{EMBED}.weight"]] == [False, False]
    assert same.notes == ()
    other = plan_merge(base_of("qwen2-300m"), [adapter])
    assert other.changes[f"{EMBED}.weight"][0][1].replaced
    assert "lora has its own copy of" in other.notes[0]


@pytest.mark.parametrize(
    ("tensors", "config", "says"),
    [
        ({}, {}, "The adapter in lora has no tensors"),
        ({"mlp1.0.bias": (128,)}, {"modules_to_save": ["mlp1.0", "lm_head"]}, "should hold the module lm_head"),
        (
            {"mlp1.1.lora_A.weight": (2, 128), "mlp1.1.lora_B.weight": (64, 2)},
            {"use_dora": True},
            "no magnitudes for mlp",
        ),
        ({"mlp1.0.lora_A.weight": (2, 128)}, {}, r"In lora: .*mlp1.0.lora_A.weight would change mlp1.0.weight, whose"),
        ({f"{PATCH}.lora_embedding_A": (2, 32)}, {}, "whose shape is .32, 3, 14, 14"),
    ],
    ids=["no tensors", "a module to save", "magnitudes", "a vector", "embeddings of a convolution"],
)
def test_an_adapter_that_is_not_all_there_or_not_for_this_base_is_refused(
    tensors: dict[str, tuple[int, ...]], config: Config, says: str
):
    made = {P + key: whole(*shape) for key, shape in tensors.items()}
    with pytest.raises(ContradictionError, match=says):
        plan_merge(base_of("qwen2-300m"), [stated(made, lora_config(**config))])


def test_an_adapter_that_is_taken_out_of_an_hf_model_has_the_names_of_its_modules():
    tensors = random_adapter(weights_of("qwen2-300m", "l1"), lambda key: "q_proj" in key)
    pattern = {r"model\.language_model\.layers\.0\.self_attn\.q_proj": 32, "q_proj": 8}
    adapter = stated(tensors, lora_config(alpha_pattern=pattern))
    found = plan_extraction(adapter, base_of("qwen2-300m").description, KEYS["l1"], "base")
    assert {*found.tensors.values()} == {*tensors}
    assert all(key.startswith((f"{P}model.language_model.", f"{P}model.vision_tower.")) for key in found.tensors)
    checked = checked_config(JsonFile(Path("adapter_config.json"), "", found.config))
    modules = {key.removeprefix(P).partition(".lora_")[0] for key in found.tensors}
    assert {module for module in modules if checked.scaling_of(module, 2).alpha == 32} == {
        "model.language_model.layers.0.self_attn.q_proj"
    }


def test_parameters_that_were_targeted_stay_so():
    words, hidden = weights_of("qwen2-300m", "custom")[f"{EMBED}.weight"].shape
    tensors = {f"{P}{EMBED}.lora_A.weight": whole(2, hidden), f"{P}{EMBED}.lora_B.weight": whole(words, 2)}
    config = lora_config(target_modules=[], target_parameters=["embed_tokens.weight"])
    found = plan_extraction(stated(tensors, config), base_of("qwen2-300m").description, CUSTOM, "base")
    assert (found.config["target_parameters"], found.config["target_modules"]) == ([f"{EMBED}.weight"], [])


def test_a_quantised_weight_is_refused():
    base = base_of("qwen2-300m")
    key = f"{LAYER}.self_attn.q_proj.weight"
    for specs in (
        {**base.specs, key: TensorSpec("F8_E4M3", (32, 32))},
        {k: s for k, s in base.specs.items() if k != key},
    ):
        with pytest.raises(UnsupportedModelError, match="which the base model has quantised"):
            plan_merge(replace(base, specs=specs), [q_proj(lora_config())])


def test_the_config_of_an_adapter_that_is_taken_out():
    base = base_of("qwen2-300m")
    tensors = random_adapter(weights_of("qwen2-300m", "custom"), rank_of=lambda key: 4 if "vision" in key else 2)
    file = JsonFile(Path("config.json"), "", config_of("qwen2-300m"))
    without = config_without_file(file)
    adapter = replace(stated(tensors, lora_config()), config=without, scaling_of=trained_scaling(file, 16))
    found = plan_extraction(adapter, base.description, CUSTOM, "parts/base")
    assert found.tensors == {key: key for key in tensors}
    config = found.config
    assert (config["r"], config["lora_alpha"], config["use_dora"], config["lora_bias"]) == (2, 16, False, False)
    assert set(config["rank_pattern"].values()) == {4}
    assert config["base_model_name_or_path"] == "parts/base"
    checked = checked_config(JsonFile(Path("adapter_config.json"), "", config))
    merged = plan_merge(base, [replace(adapter, config=checked, scaling_of=checked.scaling_of)])
    assert merged == plan_merge(base, [adapter])


def test_an_adapter_without_factors_can_be_taken_out():
    base = base_of("qwen2-300m")
    size = len(weights_of("qwen2-300m", "custom")["mlp1.0.bias"])
    adapter = stated({f"{P}mlp1.0.bias": whole(size)}, lora_config(modules_to_save=["mlp1.0"]))
    found = plan_extraction(adapter, base.description, CUSTOM, "base")
    assert found.config["modules_to_save"] == ["mlp1.0"]
