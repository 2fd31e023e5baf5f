"""Foreign keys are explained: what they most likely are, and what to do."""

import pytest

from internvl_bridge.errors import (
    UnknownKeyError,
)
from internvl_bridge.mapping.dimensions import TextDims
from internvl_bridge.mapping.families import GPT_OSS, QWEN2, QWEN3_MOE, Experts
from internvl_bridge.mapping.formats import Format
from internvl_bridge.mapping.make_plan import make_plan
from internvl_bridge.mapping.plan import TensorSpec

TO_HF, TO_CUSTOM = Format.HF, Format.CUSTOM


SPEC = TensorSpec("BF16", (6, 2))


TEXT = TextDims(7, 5, 6, 1, 4, 2, 3, False, False, None)


@pytest.mark.parametrize(
    ("key", "reason", "remedy"),
    [
        ("mlp2.0.weight", "'Flash' releases", "without '-Flash'"),
        ("gating.fc.bias", "'Flash' releases", "without '-Flash'"),
        ("pooling_before_gating.query", "'Flash' releases", "without '-Flash'"),
        (
            "vision_model.base_model.model.encoder.layers.0.attn.qkv.base_layer.weight",
            "LoRA adapter",
            "internvl-bridge merge CHECKPOINT",
        ),
        (
            "language_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
            "LoRA adapter",
            "internvl-bridge merge CHECKPOINT",
        ),
        (
            "language_model.model.layers.0.mlp.up_proj.lora_B.weight",
            "LoRA adapter",
            "internvl-bridge merge CHECKPOINT",
        ),
        ("language_model.base_model.model.lm_head.weight", "LoRA adapter", "internvl-bridge merge CHECKPOINT"),
        (
            "language_model.model.layers.0.mlp.up_proj.lora_magnitude_vector",
            "LoRA adapter",
            "internvl-bridge merge CHECKPOINT",
        ),
        ("language_model.lm_head.qweight", "quantised", "Convert the unquantised"),
        ("language_model.lm_head.qzeros", "quantised", "Convert the unquantised"),
        ("language_model.lm_head.scales", "quantised", "Convert the unquantised"),
        ("language_model.model.layers.0.mlp.up_proj.g_idx", "quantised", "Convert the unquantised"),
        ("language_model.lm_head.weight_scale", "quantised", "Convert the unquantised"),
        (
            "language_model.lm_head.weight_scale_inv",
            "quantised",
            "Convert the unquantised",
        ),
        ("language_model.lm_head.input_scale", "quantised", "Convert the unquantised"),
        ("language_model.lm_head.weight.absmax", "quantised", "Convert the unquantised"),
        (
            "language_model.lm_head.weight.quant_state.bitsandbytes__nf4",
            "quantised",
            "Convert the unquantised",
        ),
        ("language_model.model.layers.0.self_attn.k_scale", "quantised", "Convert the unquantised"),
        (
            "model.language_model.layers.0.self_attn.q_proj.weight.absmax",
            "quantised q, k or v",
            "remove internvl_bridge",
        ),
        ("language_model.model.layers.0.attention.wqkv.scales", "quantised InternLM2", "quantise the result"),
        ("vision_model.encoder.layers.0.attn.qkv.weight_scale", "quantised", "Convert the unquantised"),
        (
            "language_model.model.layers.0.mlp.experts.gate_up_proj",
            "all experts in one tensor",
            "Correct config.json",
        ),
        (
            "language_model.model.layers.0.mlp.experts.down_proj",
            "all experts in one tensor",
            "Correct config.json",
        ),
        (
            "model.language_model.layers.0.mlp.experts.gate_up_proj",
            "all experts in one tensor",
            "Correct config.json",
        ),
        ("module.vision_model.encoder.layers.0.ls1", "training wrapper", "Save the unwrapped model's"),
        ("_orig_mod.mlp1.0.weight", "training wrapper", "Save the unwrapped model's"),
        ("_fsdp_wrapped_module.mlp1.0.weight", "training wrapper", "Save the unwrapped model's"),
        (
            "language_model.lm_head.modules_to_save.default.weight",
            "PEFT keeps it",
            "internvl-bridge merge CHECKPOINT",
        ),
        ("language_model.lm_head.original_module.weight", "PEFT keeps it", "internvl-bridge merge CHECKPOINT"),
        (
            "language_model.model.embed_tokens.token_adapter.trainable_tokens_delta",
            "PEFT keeps it",
            "internvl-bridge merge CHECKPOINT",
        ),
        ("language_model.model.layers.0.mlp.up_proj.weight_global_scale", "quantised", "Convert the unquantised"),
        ("language_model.model.layers.0.mlp.fc1._extra_state", "Transformer Engine", "Export the model"),
        ("language_model._flat_param", "FSDP keeps all weights", "FULL_STATE_DICT"),
        ("v_head.summary.weight", "a head that scores answers", "without that head"),
        ("language_model.model.visual_expert.weight", "neither checkpoint format", "Remove the tensor if it does not"),
        ("", "neither checkpoint format", "Remove the tensor if it does not"),
    ],
)
@pytest.mark.parametrize("direction", Format)
def test_a_foreign_key_is_diagnosed(key: str, reason: str, remedy: str, direction: Format) -> None:
    with pytest.raises(UnknownKeyError) as error:
        make_plan(
            QWEN3_MOE.table(TEXT),
            {"mlp1.0.weight": SPEC, key: SPEC} if direction is TO_HF else {key: SPEC},
            direction,
        )

    assert error.value.reason.startswith(f"Unknown tensor {key}: ")
    assert reason in error.value.reason
    assert remedy in error.value.remedy


@pytest.mark.parametrize("part", ["gate_up", "down"])
def test_stacked_experts_are_gpt_oss_own(part: str) -> None:
    key = f"language_model.model.layers.0.mlp.experts.{part}_proj"

    assert make_plan(GPT_OSS.table(TEXT), {key: SPEC}, TO_HF).targets == {key: SPEC}
    assert make_plan(GPT_OSS.table(TEXT), {key: SPEC}, TO_CUSTOM).targets == {key: SPEC}


def test_stacked_experts_are_none_of_the_custom_format() -> None:
    key = "language_model.model.layers.0.mlp.experts.gate_up_proj"

    with pytest.raises(UnknownKeyError, match=rf"^Unknown tensor {key}: it holds all experts in one tensor"):
        make_plan(QWEN3_MOE.table(TEXT, Experts.FUSED), {key: SPEC}, TO_HF)


def test_an_expert_of_its_own_is_unknown_among_fused_ones() -> None:
    key = "language_model.model.layers.0.mlp.experts.0.gate_proj.weight"

    with pytest.raises(UnknownKeyError, match=rf"^Unknown tensor {key}: it belongs to neither checkpoint format"):
        make_plan(QWEN3_MOE.table(TEXT, Experts.FUSED), {key: SPEC}, TO_CUSTOM)


def test_of_a_whole_model_no_tensor_is_to_be_removed() -> None:
    with pytest.raises(UnknownKeyError) as error:
        make_plan(QWEN2.table(TEXT), {f"transformer.h.{number}.w": SPEC for number in range(20)}, TO_HF)

    assert "they belong to neither checkpoint format" in error.value.reason
    assert "Remove" not in error.value.remedy


def test_many_unknown_keys_are_counted_and_the_first_three_named() -> None:
    specs = dict.fromkeys(["a", "b", "mlp1.0.weight", "c", "d", "e"], SPEC)

    with pytest.raises(UnknownKeyError, match=r"^Unknown tensor a, b, c and 2 more: "):
        make_plan(QWEN2.table(TEXT), specs, TO_HF)
