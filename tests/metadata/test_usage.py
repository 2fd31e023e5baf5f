"""How a model is meant to be used, as its small files say."""

import json
from pathlib import Path

import pytest
from support import DATA, copy_custom, edit_json

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.mapping.families import GPT_OSS, QWEN3_MOE
from internvl_bridge.metadata.config.description import describe
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.config.rope import suits_transformers_4
from internvl_bridge.metadata.usage import Usage, usage_of


def usage(directory: Path) -> Usage:
    return usage_of(describe(read_config(directory)))


def test_a_custom_checkpoint_says_it_in_its_config(tmp_path: Path):
    source = copy_custom("qwen2-300m", tmp_path / "source")
    (source / "preprocessor_config.json").unlink(missing_ok=True)
    assert usage(source) == Usage(56, 1, 12, 4, "internvl2_5", "v2", tokenizer=True, processor=False)
    (source / "preprocessor_config.json").write_text("{}")
    edit_json(source / "config.json", lambda config: config.update(max_dynamic_patch=6, force_image_size=112))
    assert usage(source) == Usage(112, 1, 6, 16, "internvl2_5", "v2", tokenizer=True, processor=True)


def test_an_hf_checkpoint_says_it_in_its_processor(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text((DATA / "hf" / "qwen3-300m-tied@5.4.0" / "config.json").read_text())
    assert usage(source) == Usage(56, None, None, 4, None, "v2", tokenizer=False, processor=False)
    edit_json(source / "config.json", lambda config: config.update(min_dynamic_patch=2, max_dynamic_patch=3))
    assert (usage(source).smallest, usage(source).largest) == (2, 3)
    (source / "preprocessor_config.json").write_text(json.dumps({"min_patches": 1, "max_patches": 8}))
    assert (usage(source).smallest, usage(source).largest, usage(source).processor) == (1, 8, True)
    turn = "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    (source / "chat_template.jinja").write_text(turn)
    assert usage(source).template is not None
    (source / "preprocessor_config.json").write_text("[")
    with pytest.raises(CompanionFileError, match=r"preprocessor_config\.json"):
        usage(source)


@pytest.mark.parametrize(
    ("family", "text", "suits"),
    [
        (QWEN3_MOE, {"rope_theta": 1, "num_experts": 4}, True),
        (QWEN3_MOE, {"rope_parameters": {"rope_theta": 1}, "num_experts": 4}, False),
        (QWEN3_MOE, {"rope_theta": 1, "rope_parameters": {}, "num_local_experts": 4}, False),
        (QWEN3_MOE, {"rope_theta": 1, "num_local_experts": 4, "num_experts": 4}, True),
        (GPT_OSS, {"num_local_experts": 4}, True),
    ],
)
def test_what_version_4_would_not_understand(family, text, suits):
    assert suits_transformers_4(text, family) is suits
