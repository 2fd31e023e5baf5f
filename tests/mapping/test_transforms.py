"""Fused projections, run by run, written by hand from the format description.

A round trip cannot see an error that both directions share: with k and v exchanged, every law holds.
These recipes can.
"""

import pytest

from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import INTERNLM2, INTERNLM3_GROUPED, QWEN2, Family
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import make_plan
from internvl_bridge.mapping.plan import Recipe, Run, TensorSpec

# heads 4, key-value heads 2, head_dim 3, hidden 5
TEXT = TextDims(7, 5, 6, 1, 4, 2, 3, True, False, None)


def test_vision_weights_are_three_thirds() -> None:
    fused = "vision_model.encoder.layers.7.attn.qkv.weight"
    part = "vision_tower.encoder.layer.7.attention"
    specs = {fused: TensorSpec("BF16", (6, 2))}
    third = TensorSpec("BF16", (2, 2))

    to_hf = make_plan(QWEN2.table(TEXT), specs, Format.HF)

    assert to_hf.recipes == {
        f"{part}.q_proj.weight": Recipe(third, (Run(fused, 0, 4),)),
        f"{part}.k_proj.weight": Recipe(third, (Run(fused, 4, 8),)),
        f"{part}.v_proj.weight": Recipe(third, (Run(fused, 8, 12),)),
    }
    assert make_plan(QWEN2.table(TEXT), to_hf.targets, Format.CUSTOM).recipes == {
        fused: Recipe(
            TensorSpec("BF16", (6, 2)),
            (
                Run(f"{part}.q_proj.weight", 0, 4),
                Run(f"{part}.k_proj.weight", 0, 4),
                Run(f"{part}.v_proj.weight", 0, 4),
            ),
        )
    }


def test_vision_biases_are_three_thirds() -> None:
    fused = "vision_model.encoder.layers.0.attn.qkv.bias"
    part = "vision_tower.encoder.layer.0.attention"
    specs = {fused: TensorSpec("F16", (6,))}
    third = TensorSpec("F16", (2,))

    to_hf = make_plan(QWEN2.table(TEXT), specs, Format.HF)

    assert to_hf.recipes == {
        f"{part}.q_proj.bias": Recipe(third, (Run(fused, 0, 2),)),
        f"{part}.k_proj.bias": Recipe(third, (Run(fused, 2, 4),)),
        f"{part}.v_proj.bias": Recipe(third, (Run(fused, 4, 6),)),
    }
    assert make_plan(QWEN2.table(TEXT), to_hf.targets, Format.CUSTOM).recipes == {
        fused: Recipe(
            TensorSpec("F16", (6,)),
            (
                Run(f"{part}.q_proj.bias", 0, 2),
                Run(f"{part}.k_proj.bias", 0, 2),
                Run(f"{part}.v_proj.bias", 0, 2),
            ),
        )
    }


# Rows of wqkv: q0 q1 k0 v0 q2 q3 k1 v1, each a head of 3 rows, each row of 5 elements.


@pytest.mark.parametrize("family", [INTERNLM2, INTERNLM3_GROUPED], ids=lambda family: family.name)
def test_grouped_weights_alternate_by_key_value_head(family: Family) -> None:
    fused = "language_model.model.layers.3.attention.wqkv.weight"
    part = "language_model.model.layers.3.self_attn"
    specs = {fused: TensorSpec("BF16", (24, 5))}

    to_hf = make_plan(family.table(TEXT), specs, Format.HF)

    assert to_hf.recipes == {
        f"{part}.q_proj.weight": Recipe(TensorSpec("BF16", (12, 5)), (Run(fused, 0, 30), Run(fused, 60, 90))),
        f"{part}.k_proj.weight": Recipe(TensorSpec("BF16", (6, 5)), (Run(fused, 30, 45), Run(fused, 90, 105))),
        f"{part}.v_proj.weight": Recipe(TensorSpec("BF16", (6, 5)), (Run(fused, 45, 60), Run(fused, 105, 120))),
    }
    assert make_plan(family.table(TEXT), to_hf.targets, Format.CUSTOM).recipes == {
        fused: Recipe(
            TensorSpec("BF16", (24, 5)),
            (
                Run(f"{part}.q_proj.weight", 0, 30),
                Run(f"{part}.k_proj.weight", 0, 15),
                Run(f"{part}.v_proj.weight", 0, 15),
                Run(f"{part}.q_proj.weight", 30, 60),
                Run(f"{part}.k_proj.weight", 15, 30),
                Run(f"{part}.v_proj.weight", 15, 30),
            ),
        )
    }


@pytest.mark.parametrize("family", [INTERNLM2, INTERNLM3_GROUPED], ids=lambda family: family.name)
def test_grouped_biases_alternate_by_key_value_head(family: Family) -> None:
    fused = "language_model.model.layers.0.attention.wqkv.bias"
    part = "language_model.model.layers.0.self_attn"
    specs = {fused: TensorSpec("BF16", (24,))}

    to_hf = make_plan(family.table(TEXT), specs, Format.HF)

    assert to_hf.recipes == {
        f"{part}.q_proj.bias": Recipe(TensorSpec("BF16", (12,)), (Run(fused, 0, 6), Run(fused, 12, 18))),
        f"{part}.k_proj.bias": Recipe(TensorSpec("BF16", (6,)), (Run(fused, 6, 9), Run(fused, 18, 21))),
        f"{part}.v_proj.bias": Recipe(TensorSpec("BF16", (6,)), (Run(fused, 9, 12), Run(fused, 21, 24))),
    }
    assert make_plan(family.table(TEXT), to_hf.targets, Format.CUSTOM).recipes == {
        fused: Recipe(
            TensorSpec("BF16", (24,)),
            (
                Run(f"{part}.q_proj.bias", 0, 6),
                Run(f"{part}.k_proj.bias", 0, 3),
                Run(f"{part}.v_proj.bias", 0, 3),
                Run(f"{part}.q_proj.bias", 6, 12),
                Run(f"{part}.k_proj.bias", 3, 6),
                Run(f"{part}.v_proj.bias", 3, 6),
            ),
        )
    }


# Names that a wrong table would exchange without any law noticing, since shapes agree.
@pytest.mark.parametrize(
    ("custom", "hf"),
    [
        ("feed_forward.w1.weight", "mlp.gate_proj.weight"),
        ("feed_forward.w3.weight", "mlp.up_proj.weight"),
        ("feed_forward.w2.weight", "mlp.down_proj.weight"),
        ("attention_norm.weight", "input_layernorm.weight"),
        ("ffn_norm.weight", "post_attention_layernorm.weight"),
        ("attention.wo.weight", "self_attn.o_proj.weight"),
    ],
)
def test_internlm2_names_become_llama_names(custom: str, hf: str) -> None:
    layer, spec = "language_model.model.layers.0", TensorSpec("BF16", (5, 5))

    plan = make_plan(INTERNLM2.table(TEXT), {f"{layer}.{custom}": spec}, Format.HF)

    assert plan.recipes == {f"{layer}.{hf}": Recipe(spec, (Run(f"{layer}.{custom}", 0, 25),))}


@pytest.mark.parametrize(
    ("custom", "hf"),
    [
        ("norm1.weight", "layernorm_before.weight"),
        ("norm2.bias", "layernorm_after.bias"),
        ("ls1", "lambda_1"),
        ("ls2", "lambda_2"),
        ("attn.q_norm.weight", "attention.q_norm.weight"),
        ("attn.k_norm.weight", "attention.k_norm.weight"),
        ("attn.proj.weight", "attention.projection_layer.weight"),
        ("mlp.fc1.bias", "mlp.fc1.bias"),
    ],
)
def test_vision_names_are_translated(custom: str, hf: str) -> None:
    old, new = f"vision_model.encoder.layers.1.{custom}", f"vision_tower.encoder.layer.1.{hf}"
    spec = TensorSpec("BF16", (4,))

    plan = make_plan(QWEN2.table(TEXT), {old: spec}, Format.HF)

    assert plan.recipes == {new: Recipe(spec, (Run(old, 0, 4),))}
