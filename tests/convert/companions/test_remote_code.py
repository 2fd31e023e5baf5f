"""Where the custom format's Python modules come from when nobody lends them."""

from typing import Any

import pytest
from metadata.describing import custom_config

from internvl_bridge.convert.companions.remote_code import (
    hub_auto_map,
    hub_repository,
    missing_modules,
    tokenizer_at_hub,
)
from internvl_bridge.mapping.families import FAMILIES, Family

STORED = custom_config("qwen2-300m")
MODULES = ["configuration_internvl_chat.py", "modeling_internvl_chat.py"]


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_family_has_a_repository_of_upstreams(family: Family):
    auto_map = hub_auto_map(family)
    assert auto_map.keys() == STORED["auto_map"].keys()
    repository = hub_repository({"auto_map": auto_map})
    assert repository is not None
    assert repository.startswith("OpenGVLab/InternVL")
    assert {name: reference.removeprefix(f"{repository}--") for name, reference in auto_map.items()} == STORED[
        "auto_map"
    ]
    assert missing_modules({"auto_map": auto_map}, []) == []


def test_modules_beside_a_config_are_missed_where_they_are_not():
    assert missing_modules(STORED, []) == MODULES
    assert missing_modules(STORED, ["README.md", MODULES[1]]) == MODULES[:1]
    assert missing_modules(STORED, MODULES) == []
    assert hub_repository(STORED) is None


def test_each_reference_counts_for_itself():
    config = {"auto_map": {"AutoConfig": "here.Config", "AutoModel": "who/what--there.Model"}}
    assert hub_repository(config) == "who/what"
    assert missing_modules(config, []) == ["here.py"]


@pytest.mark.parametrize("auto_map", [None, [], "x.Y", 5, {}, {"AutoModel": None}, {"AutoTokenizer": [None]}])
def test_an_auto_map_that_names_nothing_asks_for_nothing(auto_map: Any):
    assert hub_repository({"auto_map": auto_map}) is None
    assert missing_modules({"auto_map": auto_map}, []) == []
    assert missing_modules({}, []) == []


AT_HUB = "OpenGVLab/InternVL2_5-8B--tokenization_internlm2.InternLM2Tokenizer"


OF_3 = "tokenization_internlm3.InternLM3Tokenizer"
LOCAL = "tokenization_internlm2.InternLM2Tokenizer"


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ([LOCAL, None], [AT_HUB, None]),
        ([None, LOCAL], [None, AT_HUB]),
        ([LOCAL, LOCAL], [AT_HUB, AT_HUB]),
        ([AT_HUB, None], [AT_HUB, None]),
        ([LOCAL, "me/mine--other.Fast"], [AT_HUB, "me/mine--other.Fast"]),
        ([LOCAL, 5], [AT_HUB, 5]),
        ([OF_3, None], [f"OpenGVLab/InternVL3-9B--{OF_3}", None]),
        (["tokenization_internlm2_mine.Tokenizer", None], ["tokenization_internlm2_mine.Tokenizer", None]),
    ],
)
def test_a_tokenizers_module_is_found_at_the_hub(stated: Any, expected: Any):
    config = {"eos_token": "</s>", "auto_map": {"AutoTokenizer": stated}}
    made = tokenizer_at_hub(config)
    assert made == {"eos_token": "</s>", "auto_map": {"AutoTokenizer": expected}}
    assert missing_modules(made, ["tokenization_internlm2_mine.py"]) == []
    assert config["auto_map"] == {"AutoTokenizer": stated}


def test_a_tokenizers_module_that_is_named_alone_is_found_at_the_hub():
    """transformers takes a text for the slow class."""
    made = tokenizer_at_hub({"auto_map": {"AutoTokenizer": LOCAL}})["auto_map"]["AutoTokenizer"]
    assert made in (AT_HUB, [AT_HUB], [AT_HUB, None])


@pytest.mark.parametrize(
    ("auto_map", "expected"),
    [
        ({"AutoTokenizer": [LOCAL, None]}, ["tokenization_internlm2.py"]),
        ({"AutoTokenizer": [None, "fast.Fast"], "AutoConfig": "slow.Slow"}, ["fast.py", "slow.py"]),
        ({"AutoTokenizer": LOCAL}, ["tokenization_internlm2.py"]),
        ({"AutoTokenizer": [AT_HUB, None]}, []),
        ({"AutoTokenizer": [None, None], "AutoModel": {}}, []),
        (["AutoTokenizer"], []),
        (None, []),
    ],
)
def test_the_modules_that_a_tokenizer_needs_are_known(auto_map: Any, expected: list[str]):
    assert missing_modules({"auto_map": auto_map}, ["other.py"]) == expected
    assert missing_modules({"auto_map": auto_map}, expected) == []
