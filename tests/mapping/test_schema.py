"""The schema compared with the model classes of transformers themselves: same keys, same shapes."""

import json
from typing import Any

import pytest
from mapping_enumerator import laid_out
from metadata.describing import description

from internvl_bridge.mapping.dimensions import VisionDims
from internvl_bridge.mapping.families import GPT_OSS, QWEN3_MOE, Experts
from internvl_bridge.mapping.plan import TensorSpec
from internvl_bridge.mapping.routes import Route, plan_route
from internvl_bridge.mapping.schema import HEAD, has_head, has_mxfp4, hf_schema
from internvl_bridge.mapping.spellings import L2, MOST_COMPATIBLE, KeySpelling

Shapes = dict[str, tuple[int, ...]]

COMMON = {
    "vocab_size": 11,
    "hidden_size": 12,
    "intermediate_size": 10,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
EXPERTS = {"num_experts": 3, "moe_intermediate_size": 5, "num_experts_per_tok": 1}
TEXT_MODELS: dict[str, dict[str, Any]] = {
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 6},
    "qwen3 of default head_dim": {"model_type": "qwen3"},
    "qwen3 with bias": {"model_type": "qwen3", "head_dim": 6, "attention_bias": True},
    "qwen3_moe": {"model_type": "qwen3_moe", "head_dim": 6, **EXPERTS},
    "qwen3_moe of every second layer": {"model_type": "qwen3_moe", "decoder_sparse_step": 2, **EXPERTS},
    "qwen3_moe with a dense layer": {"model_type": "qwen3_moe", "mlp_only_layers": [0], **EXPERTS},
    "llama": {"model_type": "llama"},
    "llama with head_dim": {"model_type": "llama", "head_dim": 6},
    "llama with bias": {"model_type": "llama", "attention_bias": True},
    "llama with mlp bias": {"model_type": "llama", "mlp_bias": True},
    "phi3": {"model_type": "phi3"},
    "gpt_oss": {"model_type": "gpt_oss", "head_dim": 6, "num_local_experts": 3},
    "gpt_oss of default head_dim": {"model_type": "gpt_oss", "num_local_experts": 3},
    "gpt_oss without bias": {"model_type": "gpt_oss", "num_local_experts": 3, "attention_bias": False},
}
TOWERS: dict[str, dict[str, Any]] = {
    "300m": {"norm_type": "layer_norm", "attention_bias": True, "use_qk_norm": False},
    "6b": {"norm_type": "rms_norm", "attention_bias": False, "use_qk_norm": True},
}


def build(text: dict[str, Any], tower: dict[str, Any]) -> tuple[dict[str, Any], Shapes]:
    """Config and tensor shapes of a model of transformers, built without memory."""
    import torch
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    vision = {"hidden_size": 8, "intermediate_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes = {"image_size": [28, 28], "patch_size": [7, 7]}
    config = InternVLConfig(
        text_config=COMMON | text,
        vision_config=vision | sizes | tower,
        tie_word_embeddings=False,
        downsample_ratio=0.5,
    )
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(config)
    return json.loads(config.to_json_string(use_diff=False)), {
        key: tuple(tensor.shape) for key, tensor in model.state_dict().items()
    }


def one_tensor_per_expert(shapes: Shapes) -> Shapes:
    """Qwen3-MoE as it is on disk: in memory, its experts are stacked, gate over up."""
    expanded: Shapes = {}
    for key, shape in shapes.items():
        name, _, part = key.rpartition(".")
        for expert in range(shape[0] if name.endswith(".mlp.experts") else 0):
            if part == "gate_up_proj":
                half = (shape[1] // 2, shape[2])
                expanded[f"{name}.{expert}.gate_proj.weight"] = half
                expanded[f"{name}.{expert}.up_proj.weight"] = half
            else:
                expanded[f"{name}.{expert}.{part}.weight"] = shape[1:]
        if not name.endswith(".mlp.experts"):
            expanded[key] = shape
    return expanded


def schema_of(config: dict[str, Any]) -> Shapes:
    """The schema for a config.json of transformers 5, in the spelling of a state dict."""
    model = description(config)
    return {laid_out(key, "L2"): shape for key, shape in hf_schema(model.family, model.dims, {HEAD}).items()}


@pytest.mark.parametrize("text", TEXT_MODELS.values(), ids=TEXT_MODELS)
def test_the_schema_is_that_of_the_text_models_of_transformers(text: dict[str, Any]) -> None:
    config, shapes = build(text, TOWERS["300m"])

    assert schema_of(config) == (one_tensor_per_expert(shapes) if "num_experts" in text else shapes)


@pytest.mark.parametrize("text", [text for text in TEXT_MODELS.values() if "num_experts" in text])
def test_stacked_experts_are_those_of_the_state_dicts_of_transformers(text: dict[str, Any]) -> None:
    config, shapes = build(text, TOWERS["300m"])
    dims = description(config).dims
    split = {key: TensorSpec("BF16", shape) for key, shape in hf_schema(QWEN3_MOE, dims, {HEAD}).items()}

    plan = plan_route(Route(QWEN3_MOE, dims.text, MOST_COMPATIBLE, KeySpelling(L2, Experts.FUSED)), split)

    assert {key: spec.shape for key, spec in plan.targets.items()} == shapes


@pytest.mark.parametrize("tower", TOWERS.values(), ids=TOWERS)
def test_the_schema_is_that_of_both_towers_of_transformers(tower: dict[str, Any]) -> None:
    config, shapes = build(TEXT_MODELS["qwen2"], tower)

    assert schema_of(config) == shapes


def test_mxfp4_experts_unpack_to_the_bf16_experts_of_transformers() -> None:
    import torch
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    text = {**TEXT_MODELS["gpt_oss"], "hidden_size": 64, "intermediate_size": 96}
    config, shapes = build(text, TOWERS["300m"])
    dims = description(config).dims
    layer = "language_model.model.layers.{}.mlp.experts.{}_proj"
    packed = hf_schema(GPT_OSS, dims, {f"{layer.format(0, 'gate_up')}_blocks"})

    assert has_mxfp4(packed)
    assert not has_mxfp4(hf_schema(GPT_OSS, dims, set()))
    for key in (layer.format(number, part) for number in range(2) for part in ("gate_up", "down")):
        blocks = torch.zeros(packed[f"{key}_blocks"], dtype=torch.uint8)
        scales = torch.zeros(packed[f"{key}_scales"], dtype=torch.uint8)
        unpacked = convert_moe_packed_tensors(blocks, scales)
        assert tuple(unpacked.shape) == shapes[key.replace("language_model.model", "model.language_model")]
        assert key not in packed


def test_the_head_is_recognised_by_its_most_compatible_name() -> None:
    assert has_head({HEAD})
    assert not has_head({"lm_head.weight"})
    assert not has_head({"language_model.output.weight"})


@pytest.mark.parametrize(
    ("features", "kind"),
    [
        ((True, True, False), "InternViT-300M kind"),
        ((False, False, True), "InternViT-6B kind"),
        ((True, True, True), "InternViT, mixed features"),
        ((False, True, False), "InternViT, mixed features"),
    ],
)
def test_towers_are_told_apart_by_features(features: tuple[bool, bool, bool], kind: str) -> None:
    layer_norm, qkv_bias, qk_norm = features
    # The sizes of the 6B tower, which must not matter.
    tower = VisionDims(3200, 12800, 45, 25, 3, 448, 14, layer_norm, qkv_bias, qk_norm)

    assert tower.kind == kind
