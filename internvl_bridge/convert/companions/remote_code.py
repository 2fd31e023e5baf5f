"""Where a custom checkpoint's Python modules come from when its directory has none: upstream's repositories."""

from collections.abc import Collection
from typing import Any

from internvl_bridge.mapping.families import INTERNLM2, INTERNLM3, Family
from internvl_bridge.metadata.json_files import Config

_CLASSES = {
    "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
    "AutoModel": "modeling_internvl_chat.InternVLChatModel",
    "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
}

_TOKENIZERS = {
    "tokenization_internlm2": INTERNLM2.repository,
    "tokenization_internlm2_fast": INTERNLM2.repository,
    "tokenization_internlm3": INTERNLM3.repository,
}
"""Modules of tokenizers, and where upstream has them."""


def hub_auto_map(family: Family) -> dict[str, str]:
    """The ``auto_map`` that makes transformers fetch upstream's modules from the hub when the model is loaded."""
    return {name: f"{family.repository}--{reference}" for name, reference in _CLASSES.items()}


def tokenizer_at_hub(config: Config) -> dict[str, Any]:
    """A tokenizer's ``config`` whose ``auto_map`` names InternLM's module at upstream's, where it stood beside it.

    Upstream has no other one; any other is somebody's own.
    """
    auto_map = {
        name: [_tokenizer_at_hub(part) for part in (value if isinstance(value, list) else [value])]
        for name, value in config["auto_map"].items()
    }
    return {**config, "auto_map": auto_map}


def hub_repository(config: Config) -> str | None:
    """The hub repository that the ``auto_map`` of a config names, if it names one."""
    return next((reference.split("--")[0] for reference in _references(config) if "--" in reference), None)


def missing_modules(config: Config, files: Collection[str]) -> list[str]:
    """The files that the ``auto_map`` of a config expects beside it and that are not among ``files``."""
    local = {f"{reference.split('.')[0]}.py" for reference in _references(config) if "--" not in reference}
    return sorted(local - set(files))


def _tokenizer_at_hub(reference: Any) -> Any:
    module = reference.partition(".")[0] if isinstance(reference, str) else None
    return f"{_TOKENIZERS[module]}--{reference}" if module in _TOKENIZERS else reference


def _references(config: Config) -> list[str]:
    """What ``auto_map`` names: for a tokenizer, two classes at once, of which one may be null."""
    auto_map = config.get("auto_map")
    values = list(auto_map.values()) if isinstance(auto_map, dict) else []
    parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
    return [part for part in parts if isinstance(part, str)]
