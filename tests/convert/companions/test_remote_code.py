"""Where the custom format's Python modules come from when nobody lends them."""

from typing import Any

import pytest
from metadata.describing import custom_config

from internvl_bridge.convert.companions.remote_code import hub_auto_map, hub_repository, missing_modules
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
