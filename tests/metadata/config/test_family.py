"""The language model's family, from config.json and, for InternLM3, from the keys."""

from pathlib import Path
from typing import Any

import pytest

from internvl_bridge.errors import ConfigError, UnsupportedModelError
from internvl_bridge.mapping.families import (
    FAMILIES,
    GPT_OSS,
    INTERNLM2,
    INTERNLM3,
    INTERNLM3_GROUPED,
    LLAMA,
    PHI3,
    QWEN2,
    QWEN3,
    QWEN3_MOE,
    Family,
    family_named,
)
from internvl_bridge.metadata.config.family import custom_family, hf_family
from internvl_bridge.metadata.json_files import JsonFile

WQKV = "language_model.model.layers.0.attention.wqkv.weight"
Q_PROJ = "language_model.model.layers.0.self_attn.q_proj.weight"


def custom_config(**llm: Any) -> JsonFile:
    return JsonFile(Path("c.json"), "", {"model_type": "internvl_chat", "llm_config": llm})


def hf_config(**text: Any) -> JsonFile:
    return JsonFile(Path("c.json"), "", {"model_type": "internvl", "text_config": text})


@pytest.mark.parametrize(
    ("architecture", "model_type", "family"),
    [
        ("Qwen2ForCausalLM", "qwen2", QWEN2),
        ("Qwen3ForCausalLM", "qwen3", QWEN3),
        ("Qwen3MoeForCausalLM", "qwen3_moe", QWEN3_MOE),
        ("LlamaForCausalLM", "llama", LLAMA),
        ("InternLM2ForCausalLM", "internlm2", INTERNLM2),
        ("InternLM3ForCausalLM", "internlm3", INTERNLM3),
        ("Phi3ForCausalLM", "phi3", PHI3),
        ("GptOssForCausalLM", "gpt_oss", GPT_OSS),
    ],
)
def test_the_architecture_or_else_the_type_names_the_family(architecture: str, model_type: str, family: Family) -> None:
    assert custom_family(custom_config(architectures=[architecture]), ()) is family
    assert custom_family(custom_config(architectures=[architecture], model_type="other"), ()) is family
    assert custom_family(custom_config(model_type=model_type), ()) is family
    assert custom_family(custom_config(model_type=model_type, architectures=None), ()) is family


@pytest.mark.parametrize("llm", [{"architectures": ["InternLM3ForCausalLM"]}, {"model_type": "internlm3"}])
def test_internlm3_is_told_by_its_keys(llm: dict[str, Any]) -> None:
    assert custom_family(custom_config(**llm), [Q_PROJ]) is INTERNLM3
    assert custom_family(custom_config(**llm), [Q_PROJ, WQKV]) is INTERNLM3_GROUPED


def test_only_internlm3_is_told_by_its_keys() -> None:
    assert custom_family(custom_config(architectures=["LlamaForCausalLM"]), [WQKV]) is LLAMA


@pytest.mark.parametrize(
    ("llm", "said"),
    [
        ({"architectures": ["BaichuanForCausalLM"]}, "llm_config names BaichuanForCausalLM,"),
        ({"model_type": "baichuan"}, "llm_config names baichuan,"),
        ({}, "llm_config names None,"),
        ({"model_type": ["qwen2"]}, "llm_config names ['qwen2'],"),
        (
            {"architectures": ["InternLM2VEForCausalLM"]},
            "llm_config names InternLM2VEForCausalLM (it looks like Mono-InternVL),",
        ),
    ],
)
def test_other_custom_language_models_are_refused(llm: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        custom_family(custom_config(**llm), ())

    assert error.value.reason.startswith(f"c.json: {said} which no InternVL release uses")
    assert "Qwen3MoeForCausalLM" in error.value.remedy


@pytest.mark.parametrize(
    "architectures",
    [[], ["Qwen2ForCausalLM", "LlamaForCausalLM"], "Qwen2ForCausalLM", [None], [["Qwen2ForCausalLM"]], {}, 1],
)
def test_architectures_that_name_no_single_class_are_refused(architectures: Any) -> None:
    with pytest.raises(ConfigError, match="which names no single class"):
        custom_family(custom_config(architectures=architectures, model_type="qwen2"), ())


@pytest.mark.parametrize(
    ("model_type", "family"),
    [
        ("qwen2", QWEN2),
        ("qwen3", QWEN3),
        ("qwen3_moe", QWEN3_MOE),
        ("llama", LLAMA),
        ("phi3", PHI3),
        ("gpt_oss", GPT_OSS),
    ],
)
def test_the_hf_type_names_the_family(model_type: str, family: Family) -> None:
    assert hf_family(hf_config(model_type=model_type), None) is family


@pytest.mark.parametrize("twin", [LLAMA, INTERNLM2, INTERNLM3, INTERNLM3_GROUPED], ids=lambda f: f.name)
def test_a_twin_decides_whose_llama_it_is(twin: Family) -> None:
    assert hf_family(hf_config(model_type="llama"), twin) is twin


def test_a_twin_of_another_type_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"text model of type 'qwen2', but .* is of an InternLM2 model"):
        hf_family(hf_config(model_type="qwen2"), INTERNLM2)


@pytest.mark.parametrize("twin", [None, QWEN2])
@pytest.mark.parametrize("model_type", [None, "internlm2", "gemma", ["qwen2"], {}, 2])
def test_other_hf_text_models_are_refused(model_type: Any, twin: Family | None) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        hf_family(hf_config(model_type=model_type), twin)

    assert f"text_config has model_type {model_type!r}, which no InternVL release uses" in error.value.reason
    assert error.value.remedy == "Known are gpt_oss, llama, phi3, qwen2, qwen3, qwen3_moe."


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_is_found_by_its_name(family: Family) -> None:
    assert family_named(family.name) is family


def test_an_unknown_name_is_no_family() -> None:
    assert family_named("Gemma") is None
