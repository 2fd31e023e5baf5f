"""A fork has upstream's names and tensors and computes something else: its code and its fields show it."""

import json
from pathlib import Path
from typing import Any

import pytest
from metadata.describing import CUSTOM, STORED_HF

from internvl_bridge.errors import UnsupportedModelError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.forks import check_no_fork, unknown_fields
from internvl_bridge.metadata.json_files import JsonFile

CODE = "configuration_internvl_chat.InternVLChatConfig", "modeling_internvl_chat.InternVLChatModel"


def config(**values: Any) -> JsonFile:
    return JsonFile(Path("config.json"), "", values)


def auto_map(configuration: object, model: object) -> JsonFile:
    return config(auto_map={"AutoConfig": configuration, "AutoModel": model, "AutoModelForCausalLM": model})


FORKS = {
    "another module": (auto_map(CODE[0], "modeling_internvl_chat_hico2.InternVLChatModel"), "hico2"),
    "another class": (auto_map(CODE[0], "modeling_internvl_chat.InternVLChatModelV2"), "InternVLChatModelV2"),
    "another config": (auto_map("configuration_hpd.InternVLChatConfig", CODE[1]), "configuration_hpd"),
    "another module of the hub": (auto_map(CODE[0], "someone/model--modeling_hpd.InternVLChatModel"), "modeling_hpd"),
    "no name": (auto_map(CODE[0], ["modeling_internvl_chat.InternVLChatModel"]), "auto_map"),
    "positions of image tokens": (
        config(rope_pos_id_version="v2pe_fix", rope_pos_id_stride=64),
        "rope_pos_id_stride 64",
    ),
    "another token": (config(fork_token_id=151665), "fork_token_id 151665"),
}
PLAIN = {
    "upstream's": auto_map(*CODE),
    "upstream's on the hub": auto_map(*(f"OpenGVLab/InternVL3-8B--{name}" for name in CODE)),
    "a tokenizer of its own": config(auto_map={"AutoTokenizer": ["tokenization_any.Tokenizer", None]}),
    "none": config(),
    "not one": config(auto_map="modeling_hpd.InternVLChatModel"),
    "V2PE's code with upstream's positions": config(rope_pos_id_version="default", rope_pos_id_stride=None),
}


@pytest.mark.parametrize("name", FORKS)
def test_a_fork_is_refused_and_every_sign_is_named(name: str) -> None:
    found, word = FORKS[name]
    with pytest.raises(UnsupportedModelError) as caught:
        check_no_fork(found)
    assert word in caught.value.reason
    assert "--accept fork" in caught.value.remedy


@pytest.mark.parametrize("name", PLAIN)
def test_what_runs_the_code_of_upstream_is_not_a_fork(name: str) -> None:
    check_no_fork(PLAIN[name])


@pytest.mark.parametrize(("format_", "stored"), [(Format.CUSTOM, CUSTOM), (Format.HF, STORED_HF)], ids=["custom", "hf"])
def test_no_stored_config_is_that_of_a_fork(format_: Format, stored: dict[str, JsonFile]) -> None:
    for file in stored.values():
        check_no_fork(file)
        assert unknown_fields(file, format_) == []


def test_a_field_that_nobody_knows_is_named() -> None:
    assert unknown_fields(config(num_tome_tokens=64, template="internvl2_5"), Format.CUSTOM) == ["num_tome_tokens"]
    assert unknown_fields(config(template="internvl2_5"), Format.HF) == ["template"]


def test_what_transformers_writes_into_every_config_is_known() -> None:
    """Those of the installed version; the tests also run with 4.57."""
    transformers = pytest.importorskip("transformers")
    written = json.loads(transformers.InternVLConfig().to_json_string(use_diff=False))
    assert unknown_fields(config(**written), Format.HF) == []
