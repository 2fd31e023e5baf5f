"""Adapters are named for what they are, and the weights beside one are not taken for the fine-tune."""

import json
from pathlib import Path
from typing import Any

import pytest

from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.metadata.adapters import check_no_adapter, lone_adapter


def write(directory: Path, config: dict[str, Any] | None, *names: str) -> Path:
    for name in names:
        (directory / name).write_bytes(b"weights")
    if config is not None:
        (directory / "adapter_config.json").write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "a/b"}, "an adapter of 'a/b', 'LORA', rank 8, not a"),
        ({"peft_type": None, "r": "8", "base_model_name_or_path": ""}, "is an adapter, not a whole checkpoint"),
    ],
)
def test_an_adapter_alone_is_described(config: dict[str, Any], words: str, tmp_path: Path):
    refusal = lone_adapter(write(tmp_path, config))
    assert refusal is not None
    assert words in refusal.reason


def test_a_directory_without_its_config_is_not_called_an_adapter(tmp_path: Path):
    assert lone_adapter(tmp_path) is None
    check_no_adapter(tmp_path)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin", "vit.safetensors"])
@pytest.mark.parametrize("config", [{"peft_type": "LORA", "r": 4}, None])
def test_one_beside_weights_is_refused(config: dict[str, Any] | None, name: str, tmp_path: Path):
    described = ", 'LORA', rank 4" if config else ""
    with pytest.raises(UnsupportedModelError) as error:
        check_no_adapter(write(tmp_path, config, name))
    assert f"holds an adapter ({name}{described}) beside a whole checkpoint" in error.value.reason
    assert "--accept adapter" in error.value.remedy


def test_its_config_alone_is_what_trainers_leave(tmp_path: Path):
    check_no_adapter(write(tmp_path, {"peft_type": "LORA"}))
