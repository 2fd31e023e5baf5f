"""Stacked experts, run by run, written by hand from the format description; and every refusal of them.

As in test_transforms_golden.py: with gate and up exchanged in both directions, every law holds.
"""

from math import prod

import pytest
import torch
from mapping.spelled_twins import Specs, every_layout
from mapping_enumerator import laid_out, sample

from internvl_bridge.errors import BridgeError, ContradictionError, IncompleteGroupError, OptionError
from internvl_bridge.mapping.families import INTERNLM2, QWEN2, QWEN3_MOE, Experts
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import make_plan
from internvl_bridge.mapping.plan import Plan, Recipe, Run, TensorSpec
from internvl_bridge.mapping.spellings import L2, KeyLayout, spelled
from internvl_bridge.mapping.tables import stack
from internvl_bridge.mapping.transforms import Stack, Transform, group_into, source_patterns

TO_HF, TO_CUSTOM = Format.HF, Format.CUSTOM

# 2 experts, M = 2 rows of gate and of up, H = 3
LAYER = "language_model.model.layers.5.mlp.experts"
TEXT = sample("qwen3_moe").dims.text
FUSED = QWEN3_MOE.table(TEXT, Experts.FUSED)
OF_ANY_NUMBER = QWEN3_MOE.expert_rows(Experts.FUSED, None)
GATE_UP, DOWN = TensorSpec("BF16", (2, 4, 3)), TensorSpec("BF16", (2, 3, 2))
MATRIX, TURNED = TensorSpec("BF16", (2, 3)), TensorSpec("BF16", (3, 2))


def gate_up_specs(experts: int = 2, layer: str = LAYER) -> Specs:
    return {f"{layer}.{expert}.{role}_proj.weight": MATRIX for expert in range(experts) for role in ("gate", "up")}


def down_specs(experts: int = 2) -> Specs:
    return {f"{LAYER}.{expert}.down_proj.weight": TURNED for expert in range(experts)}


def test_gates_and_ups_are_stacked_expert_by_expert_gate_first() -> None:
    plan = make_plan(FUSED, gate_up_specs(), TO_HF)

    assert plan.recipes == {
        f"{LAYER}.gate_up_proj": Recipe(
            GATE_UP,
            (
                Run(f"{LAYER}.0.gate_proj.weight", 0, 6),
                Run(f"{LAYER}.0.up_proj.weight", 0, 6),
                Run(f"{LAYER}.1.gate_proj.weight", 0, 6),
                Run(f"{LAYER}.1.up_proj.weight", 0, 6),
            ),
        )
    }


def test_gates_and_ups_are_cut_out_of_their_stack() -> None:
    stacked = f"{LAYER}.gate_up_proj"

    plan = make_plan(FUSED, {stacked: GATE_UP}, TO_CUSTOM)

    assert plan.recipes == {
        f"{LAYER}.0.gate_proj.weight": Recipe(MATRIX, (Run(stacked, 0, 6),)),
        f"{LAYER}.0.up_proj.weight": Recipe(MATRIX, (Run(stacked, 6, 12),)),
        f"{LAYER}.1.gate_proj.weight": Recipe(MATRIX, (Run(stacked, 12, 18),)),
        f"{LAYER}.1.up_proj.weight": Recipe(MATRIX, (Run(stacked, 18, 24),)),
    }


def test_downs_are_stacked_expert_by_expert() -> None:
    plan = make_plan(FUSED, down_specs(), TO_HF)

    assert plan.recipes == {
        f"{LAYER}.down_proj": Recipe(
            DOWN,
            (Run(f"{LAYER}.0.down_proj.weight", 0, 6), Run(f"{LAYER}.1.down_proj.weight", 0, 6)),
        )
    }


def test_downs_are_cut_out_of_their_stack() -> None:
    stacked = f"{LAYER}.down_proj"

    plan = make_plan(FUSED, {stacked: DOWN}, TO_CUSTOM)

    assert plan.recipes == {
        f"{LAYER}.0.down_proj.weight": Recipe(TURNED, (Run(stacked, 0, 6),)),
        f"{LAYER}.1.down_proj.weight": Recipe(TURNED, (Run(stacked, 6, 12),)),
    }


def test_experts_are_counted_and_not_sorted_as_words() -> None:
    backwards = dict(reversed(down_specs(11).items()))

    plan = make_plan(OF_ANY_NUMBER, backwards, TO_HF)

    assert plan.recipes == {
        f"{LAYER}.down_proj": Recipe(
            TensorSpec("BF16", (11, 3, 2)),
            tuple(Run(f"{LAYER}.{expert}.down_proj.weight", 0, 6) for expert in range(11)),
        )
    }
    assert [recipe.runs for recipe in make_plan(OF_ANY_NUMBER, plan.targets, TO_CUSTOM).recipes.values()] == [
        (Run(f"{LAYER}.down_proj", start, start + 6),) for start in range(0, 66, 6)
    ]


def test_each_layer_has_a_stack_of_its_own() -> None:
    other = LAYER.replace("5", "15")
    specs = gate_up_specs() | gate_up_specs(layer=other)

    plan = make_plan(FUSED, specs, TO_HF)

    assert plan.targets == {f"{LAYER}.gate_up_proj": GATE_UP, f"{other}.gate_up_proj": GATE_UP}
    assert {run.key for run in plan.recipes[f"{other}.gate_up_proj"].runs} == {*gate_up_specs(layer=other)}
    assert make_plan(FUSED, plan.targets, TO_CUSTOM).targets == specs


def test_the_dtype_is_that_of_the_parts() -> None:
    specs = {key: TensorSpec("F16", spec.shape) for key, spec in down_specs().items()}

    plan = make_plan(FUSED, specs, TO_HF)

    assert plan.targets == {f"{LAYER}.down_proj": TensorSpec("F16", (2, 3, 2))}
    assert make_plan(FUSED, plan.targets, TO_CUSTOM).targets == specs


@every_layout
def test_the_stack_is_spelled_and_its_parts_are_not(layout: KeyLayout) -> None:
    table = spelled(OF_ANY_NUMBER, layout)

    plan = make_plan(table, gate_up_specs() | down_specs(), TO_HF)

    assert plan.targets == {
        laid_out(f"{LAYER}.gate_up_proj", layout.name): GATE_UP,
        laid_out(f"{LAYER}.down_proj", layout.name): DOWN,
    }
    assert make_plan(table, plan.targets, TO_CUSTOM).targets == gate_up_specs() | down_specs()


def carried_out(plan: Plan, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What the plan means, in torch's terms."""
    return {
        key: torch.cat([tensors[run.key].flatten()[run.start : run.stop] for run in recipe.runs]).view(
            recipe.spec.shape
        )
        for key, recipe in plan.recipes.items()
    }


def test_stacks_hold_what_transformers_stacks() -> None:
    """Its conversion of checkpoints concatenates gate and up in dimension 1 after stacking experts in dimension 0."""
    specs = gate_up_specs(3) | down_specs(3)
    starts = {key: 100 * number for number, key in enumerate(specs)}
    tensors = {key: torch.arange(6).view(spec.shape) + starts[key] for key, spec in specs.items()}
    gates, ups, downs = (
        torch.stack([tensors[f"{LAYER}.{expert}.{role}_proj.weight"] for expert in range(3)])
        for role in ("gate", "up", "down")
    )

    made = carried_out(make_plan(OF_ANY_NUMBER, specs, TO_HF), tensors)

    assert made.keys() == {f"{LAYER}.gate_up_proj", f"{LAYER}.down_proj"}
    assert torch.equal(made[f"{LAYER}.gate_up_proj"], torch.cat([gates, ups], dim=1))
    assert torch.equal(made[f"{LAYER}.down_proj"], downs)
    back = carried_out(
        make_plan(OF_ANY_NUMBER, {key: TensorSpec("BF16", tuple(made[key].shape)) for key in made}, TO_CUSTOM), made
    )
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[key], tensors[key]) for key in tensors)


# Refusals, custom -> HF


@pytest.mark.parametrize("lost", sorted(gate_up_specs() | down_specs()))
def test_a_missing_tensor_of_an_expert_is_named(lost: str) -> None:
    specs = gate_up_specs() | down_specs()
    del specs[lost]
    down = "down" in lost

    with pytest.raises(IncompleteGroupError) as error:
        make_plan(FUSED, specs, TO_HF)

    assert error.value.reason == (
        f"{lost} is missing; {LAYER}.{'down' if down else 'gate_up'}_proj is made of {1 if down else 2} tensors of "
        "each of 2 experts."
    )
    assert "Check num_experts in config.json" in error.value.remedy
    assert "the checkpoint is incomplete" in error.value.remedy


@pytest.mark.parametrize("table", [FUSED, OF_ANY_NUMBER], ids=["counted", "of any number"])
def test_a_missing_first_expert_is_named(table: tuple[Transform, ...]) -> None:
    with pytest.raises(IncompleteGroupError, match=r"^language_model\..*\.experts\.0\.down_proj\.weight is missing; "):
        make_plan(table, {f"{LAYER}.1.down_proj.weight": TURNED}, TO_HF)


def test_experts_fewer_than_config_json_says_are_missing() -> None:
    rows = QWEN3_MOE.expert_rows(Experts.FUSED, 3)

    with pytest.raises(IncompleteGroupError, match=rf"^{LAYER}\.2\.gate_proj\.weight is missing; .* of 3 experts\."):
        make_plan(rows, gate_up_specs(2), TO_HF)
    assert make_plan(rows, gate_up_specs(3), TO_HF).targets == {f"{LAYER}.gate_up_proj": TensorSpec("BF16", (3, 4, 3))}


def test_the_experts_of_another_layer_complete_nothing() -> None:
    specs = {f"{LAYER}.0.down_proj.weight": TURNED, f"{LAYER.replace('5', '6')}.1.down_proj.weight": TURNED}

    with pytest.raises(IncompleteGroupError, match=rf"^{LAYER}\.1\.down_proj\.weight is missing"):
        make_plan(FUSED, specs, TO_HF)


@pytest.mark.parametrize(
    ("odd", "listed"),
    [
        (TensorSpec("F32", (2, 3)), "F32 [2, 3]"),
        (TensorSpec("BF16", (3, 2)), "BF16 [3, 2]"),
        (TensorSpec("BF16", (2, 3, 1)), "BF16 [2, 3, 1]"),
        (TensorSpec("BF16", (6,)), "BF16 [6]"),
        (TensorSpec("BF16", ()), "BF16 []"),
    ],
    ids=["dtype", "shape", "more dimensions", "one dimension", "scalar"],
)
@pytest.mark.parametrize("key", [f"{LAYER}.0.up_proj.weight", f"{LAYER}.1.gate_proj.weight"])
def test_parts_that_do_not_go_together_are_listed(key: str, odd: TensorSpec, listed: str) -> None:
    with pytest.raises(ContradictionError) as error:
        make_plan(FUSED, gate_up_specs() | {key: odd}, TO_HF)

    assert error.value.reason == (
        f"{LAYER}.gate_up_proj cannot be made of tensors of different dtypes or shapes: "
        f"{LAYER}.0.gate_proj.weight BF16 [2, 3], {key} {listed}."
    )
    assert "Save the checkpoint again with one dtype" in error.value.remedy


@pytest.mark.parametrize("shape", [(), (6,), (2, 3, 1)])
def test_alike_parts_that_are_no_matrices_are_refused(shape: tuple[int, ...]) -> None:
    specs = dict.fromkeys(gate_up_specs(), TensorSpec("BF16", shape))

    with pytest.raises(ContradictionError) as error:
        make_plan(FUSED, specs, TO_HF)

    assert f"{LAYER}.gate_up_proj cannot be made of" in error.value.reason
    assert f"{LAYER}.0.gate_proj.weight BF16 {list(shape)}" in error.value.reason


def test_gate_and_up_and_down_may_be_of_different_dtypes_only_across_stacks() -> None:
    downs = {key: TensorSpec("F32", spec.shape) for key, spec in down_specs().items()}

    plan = make_plan(FUSED, gate_up_specs() | downs, TO_HF)

    assert plan.targets == {f"{LAYER}.gate_up_proj": GATE_UP, f"{LAYER}.down_proj": TensorSpec("F32", DOWN.shape)}


# Refusals, HF -> custom


@pytest.mark.parametrize(
    ("part", "shape"),
    [
        ("gate_up", (2, 5, 3)),
        ("gate_up", (2, 1, 3)),
        ("gate_up", (8, 3)),
        ("gate_up", (2, 4, 3, 1)),
        ("gate_up", (24,)),
        ("gate_up", ()),
        ("gate_up", (1, 4, 3)),
        ("gate_up", (3, 4, 3)),
        ("gate_up", (0, 4, 3)),
        ("down", (6, 2)),
        ("down", (2, 3, 2, 1)),
        ("down", ()),
        ("down", (1, 3, 2)),
        ("down", (3, 3, 2)),
        ("down", (0, 3, 2)),
    ],
)
def test_a_stack_of_another_shape_is_refused(part: str, shape: tuple[int, ...]) -> None:
    key = f"{LAYER}.{part}_proj"

    with pytest.raises(ContradictionError) as error:
        make_plan(FUSED, {key: TensorSpec("BF16", shape)}, TO_CUSTOM)

    matrices = {"gate_up": 2, "down": 1}[part]
    assert error.value.reason == (
        f"{key} has shape {list(shape)}, which is not that of {matrices} matrices for each of 2 experts."
    )
    assert "Check num_experts in config.json" in error.value.remedy


@pytest.mark.parametrize("shape", [(2, 5, 3), (8, 3), (2, 4, 3, 1), (24,), (), (0, 4, 3), (2, 0, 3)])
def test_without_a_number_of_experts_a_stack_is_refused_by_its_shape_alone(shape: tuple[int, ...]) -> None:
    key = f"{LAYER}.gate_up_proj"

    with pytest.raises(ContradictionError) as error:
        make_plan(OF_ANY_NUMBER, {key: TensorSpec("BF16", shape)}, TO_CUSTOM)

    assert error.value.reason == f"{key} has shape {list(shape)}, which is not that of 2 matrices for each expert."


@pytest.mark.parametrize("experts", [1, 2, 7])
def test_without_a_number_of_experts_there_are_as_many_as_the_stack_has(experts: int) -> None:
    specs = {f"{LAYER}.gate_up_proj": TensorSpec("BF16", (experts, 4, 3))}

    plan = make_plan(OF_ANY_NUMBER, specs, TO_CUSTOM)

    assert plan.targets == gate_up_specs(experts)
    assert make_plan(OF_ANY_NUMBER, plan.targets, TO_HF).targets == specs


# Groups


def row_of(table: tuple[Transform, ...], key: str, direction: Format) -> Transform:
    [row] = [row for row in table if any(pattern.matches(key) for pattern in source_patterns(direction, row))]
    return row


@pytest.mark.parametrize("key", gate_up_specs())
def test_all_gates_and_ups_of_a_layer_are_a_group(key: str) -> None:
    assert group_into(TO_HF, row_of(FUSED, key, TO_HF), key) == (
        f"{LAYER}.0.gate_proj.weight",
        f"{LAYER}.0.up_proj.weight",
        f"{LAYER}.1.gate_proj.weight",
        f"{LAYER}.1.up_proj.weight",
    )


@pytest.mark.parametrize("key", down_specs())
def test_all_downs_of_a_layer_are_a_group(key: str) -> None:
    assert group_into(TO_HF, row_of(FUSED, key, TO_HF), key) == tuple(down_specs())


@pytest.mark.parametrize("role", ["gate", "up", "down"])
def test_a_group_of_nobody_knows_how_many_experts_is_refused(role: str) -> None:
    key = f"{LAYER}.1.{role}_proj.weight"

    with pytest.raises(OptionError) as error:
        group_into(TO_HF, row_of(OF_ANY_NUMBER, key, TO_HF), key)

    assert error.value.reason == f"{key} is one of several experts, and nothing shows how many there are."
    assert "config.json" in error.value.remedy


@pytest.mark.parametrize("part", ["gate_up", "down"])
def test_a_stack_is_a_group_of_its_own(part: str) -> None:
    key = f"{LAYER}.{part}_proj"

    assert group_into(TO_CUSTOM, row_of(OF_ANY_NUMBER, key, TO_CUSTOM), key) == (key,)


@pytest.mark.parametrize("role", "qkv")
@pytest.mark.parametrize("param", ["weight", "bias"])
def test_query_key_and_value_are_a_group_on_the_hf_side_only(role: str, param: str) -> None:
    fused = f"vision_model.encoder.layers.4.attn.qkv.{param}"
    part = "model.vision_tower.encoder.layer.4.attention.{}_proj." + param
    table = spelled(QWEN2.table(TEXT), L2)

    assert group_into(TO_CUSTOM, row_of(table, part.format(role), TO_CUSTOM), part.format(role)) == tuple(
        part.format(role) for role in "qkv"
    )
    assert group_into(TO_HF, row_of(table, fused, TO_HF), fused) == (fused,)


def test_a_renamed_tensor_is_a_group_of_its_own() -> None:
    custom, hf = "language_model.output.weight", "language_model.lm_head.weight"
    table = INTERNLM2.table(TEXT)

    assert group_into(TO_HF, row_of(table, custom, TO_HF), custom) == (custom,)
    assert group_into(TO_CUSTOM, row_of(table, hf, TO_CUSTOM), hf) == (hf,)


def test_a_stack_is_described_by_its_templates() -> None:
    row = stack("s.{layer}", ("a.{layer}.{expert}", "b.{layer}.{expert}"), 4)

    assert isinstance(row, Stack)
    assert [pattern.template for pattern in row.custom_patterns] == ["a.{layer}.{expert}", "b.{layer}.{expert}"]
    assert [pattern.template for pattern in row.hf_patterns] == ["s.{layer}"]
    assert row.experts == 4
    specs = {key: TensorSpec("F32", (1, 1)) for n in range(4) for key in (f"a.0.{n}", f"b.0.{n}")}
    assert make_plan((row,), specs, TO_HF).targets == {"s.0": TensorSpec("F32", (4, 2, 1))}


def test_an_expert_too_many_never_disappears() -> None:
    """As config.json says there are 2, the third one must not be left out in silence: verify proves no plan."""
    with pytest.raises(BridgeError, match=rf"{LAYER}\.2\."):
        make_plan(FUSED, gate_up_specs(3), TO_HF)


def test_an_expert_too_many_is_in_no_group() -> None:
    """Streaming counts on a key to be one of its group."""
    key = f"{LAYER}.2.gate_proj.weight"

    with pytest.raises(BridgeError, match=rf"{LAYER}\.2\."):
        group_into(TO_HF, row_of(FUSED, key, TO_HF), key)


def test_all_elements_of_a_model_are_in_its_stacks() -> None:
    twin = sample("qwen3_moe")

    split, stacked = (
        sum(prod(spec.shape) for spec in twin.spelled("L1", fused=fused).values()) for fused in (False, True)
    )

    assert split == stacked
