"""What is said about the tokenizer that an HF checkpoint gets."""

import json
import shutil
from pathlib import Path

import pytest
from support import DATA

from internvl_bridge.metadata.chat.choice import ChatSetup
from internvl_bridge.metadata.tokenizer.files import read_tokenizer_files
from internvl_bridge.metadata.tokenizer.to_hf import hf_tokenizer_files

SPM = DATA / "tokenizers" / "internlm2" / "tokenizer.model"


@pytest.mark.parametrize(
    ("config", "template", "first"),
    [
        ({}, "{{ messages }}", ["<s>"]),
        ({"add_eos_token": True}, "{{ messages }}", ["<s>"]),
        ({"add_bos_token": False, "add_eos_token": True}, "{{ messages }}", []),
        ({}, "{{ bos_token }}{{ messages }}", []),
    ],
)
def test_a_token_in_front_that_the_template_does_not_write_is_named(
    config: dict[str, bool], template: str, first: list[str], tmp_path: Path
) -> None:
    shutil.copy(SPM, tmp_path / SPM.name)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer", **config}))

    _, notes = hf_tokenizer_files(read_tokenizer_files(tmp_path), ChatSetup(template, None, ()), None)

    assert [note.split(" in front")[0] for note in notes] == [f"The tokenizer puts {token}" for token in first]
