"""What the tests of this room share: configs to start from, and their descriptions."""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from support import DATA

from internvl_bridge.mapping.families import Family
from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.config.file import read_config
from internvl_bridge.metadata.json_files import JsonFile

CUSTOM = {path.name: read_config(path) for path in sorted((DATA / "custom").iterdir())}
STORED_HF = {path.name: read_config(path) for path in sorted((DATA / "hf").iterdir())}


def description(values: Mapping[str, Any], keys: Iterable[str] = (), twin: Family | None = None) -> ModelDescription:
    return describe(JsonFile(Path("config.json"), "", values), keys, twin)


def custom_config(name: str) -> dict[str, Any]:
    """A stored custom config, free to be changed."""
    return json.loads(CUSTOM[name].text)


def hf_config(name: str) -> dict[str, Any]:
    """A stored HF config, free to be changed."""
    return json.loads(STORED_HF[name].text)


def changed(config: Mapping[str, Any], section: str | None, **values: Any) -> dict[str, Any]:
    """A copy in which a section, or the top, has other values; ``...`` takes one out."""
    copy = deepcopy(dict(config))
    holder = copy if section is None else copy[section]
    holder.update(values)
    for name in [name for name, value in values.items() if value is ...]:
        del holder[name]
    return copy
