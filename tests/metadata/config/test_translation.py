"""config.json there and back: exactly what it was, for both formats and every release of transformers."""

import json
from copy import deepcopy
from typing import Any

import pytest
from metadata.describing import CUSTOM, description
from support import DATA

from internvl_bridge.mapping.families import INTERNLM2, INTERNLM3, LLAMA, Family
from internvl_bridge.metadata.config.description import ModelDescription
from internvl_bridge.metadata.config.translation import TensorFacts, TokenFacts, to_custom_config, to_hf_config

UNTIED = TensorFacts(tied=False, packed=None, dtype="bfloat16")
TIED = TensorFacts(tied=True, packed=None, dtype="bfloat16")
TURN_END = 474
TOKENS = TokenFacts(image=590, turn_end=TURN_END)

# As save_pretrained of several versions wrote them, with the vision part of any of them.
_TOP_5 = {
    "architectures": ["InternVLForConditionalGeneration"],
    "downsample_ratio": 0.5,
    "dtype": "bfloat16",
    "image_seq_length": 4,
    "image_token_id": 590,
    "model_type": "internvl",
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": False,
    "transformers_version": "5.23.0",
    "vision_config": json.loads((DATA / "hf" / "qwen3-300m-tied@5.4.0" / "config.json").read_text())["vision_config"],
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
}
_TOP_4 = {key: value for key, value in _TOP_5.items() if key != "dtype"} | {
    "torch_dtype": "bfloat16",
    "transformers_version": "4.52.4",
}
_TEXT = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-06,
    "use_cache": True,
    "vocab_size": 600,
}
_MOE = {
    "model_type": "qwen3_moe",
    "attention_bias": False,
    "decoder_sparse_step": 1,
    "head_dim": 24,
    "mlp_only_layers": [],
    "moe_intermediate_size": 40,
    "norm_topk_prob": True,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "sliding_window": None,
    "use_sliding_window": False,
}
_DEFAULT_ROPE = {"rope_theta": 1000000.0, "rope_type": "default"}
HF: dict[str, dict[str, Any]] = {
    path.name: json.loads((path / "config.json").read_text()) for path in sorted((DATA / "hf").iterdir())
} | {
    "qwen2@4.52.4": _TOP_4
    | {
        "text_config": {
            **_TEXT,
            "model_type": "qwen2",
            "layer_types": ["full_attention"] * 2,
            "max_window_layers": 28,
            "rope_scaling": None,
            "rope_theta": 1000000.0,
        }
    },
    "qwen3moe@4.57.6": _TOP_5
    | {"text_config": {**_TEXT, **_MOE, "num_experts": 4, "rope_scaling": None, "rope_theta": 1000000.0}},
    "qwen3moe@5.23.0": _TOP_5
    | {
        "text_config": {
            **_TEXT,
            **_MOE,
            "num_local_experts": 4,
            "rope_parameters": _DEFAULT_ROPE,
            "tie_word_embeddings": False,
        }
    },
    "gptoss@5.23.0": _TOP_5
    | {
        "text_config": {
            **_TEXT,
            "model_type": "gpt_oss",
            "attention_bias": True,
            "head_dim": 16,
            "layer_types": ["sliding_attention", "full_attention"],
            "num_experts_per_tok": 2,
            "num_local_experts": 4,
            "output_router_logits": False,
            "rope_parameters": {
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 32.0,
                "original_max_position_embeddings": 16,
                "rope_theta": 150000.0,
                "rope_type": "yarn",
                "truncate": False,
            },
            "router_aux_loss_coef": 0.001,
            "sliding_window": 8,
            "swiglu_alpha": 1.702,
            "swiglu_limit": 7.0,
            "tie_word_embeddings": False,
        }
    },
    "llama@5.23.0": _TOP_5
    | {
        "text_config": {
            **_TEXT,
            "model_type": "llama",
            "attention_bias": False,
            "head_dim": 16,
            "mlp_bias": False,
            "pretraining_tp": 1,
            "rope_parameters": {**_DEFAULT_ROPE, "rope_type": "dynamic", "type": "dynamic", "factor": 2.0},
            "tie_word_embeddings": False,
        }
    },
    "phi3@5.23.0": _TOP_5
    | {
        "text_config": {
            **_TEXT,
            "model_type": "phi3",
            "embd_pdrop": 0.0,
            "original_max_position_embeddings": 512,
            "resid_pdrop": 0.0,
            "rope_parameters": {**_DEFAULT_ROPE, "partial_rotary_factor": 0.5},
            "sliding_window": None,
            "tie_word_embeddings": False,
        }
    },
    "silent about every default": {
        "architectures": ["InternVLForConditionalGeneration"],
        "model_type": "internvl",
        "image_token_id": 590,
        "projector_hidden_act": "gelu",
        "vision_feature_select_strategy": "default",
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "vision_config": {"model_type": "internvl_vision"},
        "text_config": {
            "model_type": "qwen2",
            "vocab_size": 600,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
    },
    "qwen3 in both spellings": _TOP_5
    | {
        "torch_dtype": "bfloat16",
        "text_config": {
            **_TEXT,
            "model_type": "qwen3",
            "head_dim": 24,
            "attention_bias": False,
            "rope_theta": 1000000.0,
            "rope_scaling": None,
            "rope_parameters": _DEFAULT_ROPE,
        },
    },
}


def facts_of(model: ModelDescription) -> TensorFacts:
    return TIED if model.values.get("tie_word_embeddings") else UNTIED


@pytest.mark.parametrize("turn_end", [None, TURN_END])
@pytest.mark.parametrize("name", CUSTOM)
def test_custom_to_hf_and_back_is_exact(name: str, turn_end: int | None) -> None:
    custom = description(CUSTOM[name].values)

    hf = to_hf_config(custom, facts_of(custom), TokenFacts(590, turn_end), old=None)
    back, assumed = to_custom_config(description(hf, twin=custom.family), facts_of(custom), {}, turn_end, old=custom)

    assert json.dumps(back) == json.dumps(json.loads(CUSTOM[name].text))
    assert assumed == ()


@pytest.mark.parametrize("name", HF)
def test_hf_to_custom_and_back_is_exact(name: str) -> None:
    hf = description(HF[name])

    custom, _ = to_custom_config(hf, facts_of(hf), {}, TURN_END, old=None)
    back = to_hf_config(description(custom), facts_of(hf), TOKENS, old=hf)

    assert json.dumps(back) == json.dumps(HF[name])


@pytest.mark.parametrize("twin", [LLAMA, INTERNLM2, INTERNLM3], ids=lambda family: family.name)
def test_llama_comes_home_whatever_custom_class_it_visits(twin: Family) -> None:
    config = HF["llama@5.23.0"]
    hf = description(config, twin=twin)

    custom, _ = to_custom_config(hf, UNTIED, {}, TURN_END, old=None)

    assert custom["llm_config"]["architectures"] == [twin.architecture]
    assert to_hf_config(description(custom), UNTIED, TOKENS, old=hf) == config


@pytest.mark.parametrize("name", CUSTOM)
def test_a_custom_config_that_states_no_default_comes_home_without_them(name: str) -> None:
    stated = CUSTOM[name].values["llm_config"]
    decisive = {
        "architectures",
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_experts",
        "num_local_experts",
        "moe_intermediate_size",
    }
    sparse = {
        "model_type": "internvl_chat",
        "ps_version": "v2",
        "vision_config": {"image_size": 56},
        "llm_config": {key: value for key, value in stated.items() if key in decisive},
    }
    model = description(sparse)

    hf = to_hf_config(model, UNTIED, TOKENS, old=None)

    assert to_custom_config(description(hf, twin=model.family), UNTIED, {}, TURN_END, old=model)[0] == sparse
    assert hf["vision_config"]["hidden_size"] == 3200
    assert hf["vision_config"]["num_hidden_layers"] == 48
    assert hf["vision_config"]["norm_type"] == "rms_norm"
    assert hf["vision_config"]["use_qk_norm"] is True
    assert hf["vision_config"]["attention_bias"] is False


@pytest.mark.parametrize("name", CUSTOM)
def test_both_formats_describe_the_same_dimensions(name: str) -> None:
    custom = description(CUSTOM[name].values)

    hf = to_hf_config(custom, facts_of(custom), TOKENS, old=None)

    assert description(hf, twin=custom.family).dims == custom.dims


@pytest.mark.parametrize("name", HF)
def test_translating_does_not_touch_its_arguments(name: str) -> None:
    config, hf = HF[name], description(HF[name])
    facts = facts_of(hf)
    custom, _ = to_custom_config(hf, facts, {}, TURN_END, old=None)
    other = deepcopy(custom)
    other["llm_config"]["vocab_size"] = other["vision_config"]["num_hidden_layers"] = 77
    other["select_layer"] = -3
    texts = [json.dumps(values) for values in (config, custom, other)]

    changed = to_hf_config(description(other), facts, TokenFacts(1, TURN_END), old=hf)
    changed_back, _ = to_custom_config(description(changed), facts, {}, TURN_END, old=description(custom))

    assert changed["text_config"]["vocab_size"] == 77
    assert changed_back == other
    assert [json.dumps(values) for values in (config, custom, other)] == texts


@pytest.mark.parametrize("name", CUSTOM)
def test_litter_stays_at_home(name: str) -> None:
    """Neither the generic keys of old config classes nor the trainer's own are passed on."""
    litter = {"moe_config": None, "capacity_factor": 1.2, "ep_size": 1, "use_deepep": False}
    config = CUSTOM[name].values
    littered = description(config | {"llm_config": config["llm_config"] | litter})
    facts = facts_of(littered)

    hf = to_hf_config(littered, facts, TOKENS, old=None)

    generic = {"num_beams", "id2label", "torchscript", "max_length", "auto_map", "template", "ps_version"}
    for section in (hf, hf["text_config"], hf["vision_config"]):
        assert not section.keys() & (litter.keys() | generic)
    assert (
        to_custom_config(description(hf, twin=littered.family), facts, {}, TURN_END, old=littered)[0]
        == littered.file.values
    )
