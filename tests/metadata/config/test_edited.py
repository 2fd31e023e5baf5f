"""config.json after weights were computed says what is so, and else what it said before."""

import json
from pathlib import Path
from typing import Any

import pytest
from state_dicts import config_of, custom_of

from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.config.edited import edited_config
from internvl_bridge.metadata.json_files import JsonFile


def described(**values: Any) -> ModelDescription:
    config = {**config_of("qwen3-300m-tied"), **values}
    text = json.dumps(config, indent=7)
    return describe(JsonFile(Path("config.json"), text, config), custom_of("qwen3-300m-tied"))


def edited(model: ModelDescription, dtype: str | None = None, **options: Any) -> dict[str, Any]:
    text = edited_config(model, dtype=dtype, **{"is_merged": False, "unties": False, **options})
    values: dict[str, Any] = json.loads(text)
    return values


def test_what_is_still_so_keeps_its_text():
    model = described(use_backbone_lora=0)
    assert edited_config(model, dtype=None, is_merged=True, unties=False) == model.file.text


def test_upstream_is_not_told_to_wrap_a_merged_model():
    values = edited(described(use_backbone_lora=8, use_llm_lora=16), is_merged=True)
    assert values == {**described().file.values, "use_backbone_lora": 0, "use_llm_lora": 0}


@pytest.mark.parametrize("names", [["torch_dtype"], ["dtype"], ["torch_dtype", "dtype"], []])
def test_the_dtype_is_stated_wherever_one_was(names: list[str]):
    config = config_of("qwen3-300m-tied")
    config.pop("torch_dtype", None)
    config |= dict.fromkeys(names, "bfloat16")
    config["llm_config"].pop("torch_dtype", None)
    config["vision_config"]["torch_dtype"] = "bfloat16"
    model = describe(JsonFile(Path("config.json"), "", config), custom_of("qwen3-300m-tied"))
    values = edited(model, "float16")
    assert {name: values.get(name) for name in names or ["torch_dtype"]} == dict.fromkeys(
        names or ["torch_dtype"], "float16"
    )
    assert values["vision_config"]["torch_dtype"] == "float16"
    assert "torch_dtype" not in values["llm_config"]


def test_a_model_is_untied_in_both_places():
    values = edited(described(), unties=True)
    assert (values["tie_word_embeddings"], values["llm_config"]["tie_word_embeddings"]) == (False, False)
