"""LMDeploy's selectors: the classes and the config that it chooses for a checkpoint."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lmdeploy.archs import check_vl_llm, get_model_arch
from lmdeploy.pytorch.configurations.builder import AutoModelConfigBuilder
from lmdeploy.pytorch.models import patch
from lmdeploy.pytorch.models.module_map import MODULE_MAP
from lmdeploy.turbomind.supported_models import SUPPORTED_ARCHS, is_supported
from support import edit_json

Checkpoints = Callable[[str], Path]
NAMES = ("qwen2-300m", "qwen3-300m", "qwen3moe-6b", "internlm2-300m", "llama-6b", "gptoss-300m", "phi3-300m")


@pytest.fixture(autouse=True)
def names_instead_of_classes(monkeypatch: pytest.MonkeyPatch):
    """The classes themselves need a GPU's kernels."""
    monkeypatch.setattr(patch, "_class_from_qualname", lambda name: name)


def chosen(config: Any) -> str:
    name: str = patch._get_model_class(config, MODULE_MAP)
    return name.rpartition(".")[2]


@pytest.mark.parametrize("name", NAMES)
def test_an_hf_output_is_a_model_that_it_knows(name: str, checkpoints: Checkpoints):
    directory = str(checkpoints(name) / "hf")
    architecture, config = get_model_arch(directory)
    assert check_vl_llm("pytorch", config.to_dict())
    assert is_supported(directory)
    built = AutoModelConfigBuilder.build(config, directory)
    text = config.text_config
    assert (built.hidden_size, built.num_layers) == (text.hidden_size, text.num_hidden_layers)
    assert (architecture, chosen(config)) == ("InternVLForConditionalGeneration", "InternVLForConditionalGeneration")
    assert chosen(text) == text.architectures[0]
    assert (text.architectures[0] in SUPPORTED_ARCHS) is (name != "phi3-300m")  # TurboMind's list


def test_it_needs_the_class_of_the_language_model(checkpoints: Checkpoints, tmp_path: Path):
    """Why text_config.architectures is written."""
    directory = tmp_path / "hf"
    shutil.copytree(checkpoints("qwen2-300m") / "hf", directory)
    edit_json(directory / "config.json", lambda config: config["text_config"].pop("architectures"))
    _, config = get_model_arch(str(directory))
    with pytest.raises(AttributeError, match="language_config"):
        chosen(config.text_config)
