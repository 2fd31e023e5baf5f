"""Where a custom checkpoint's Python modules come from when its directory has none: upstream's repositories."""

from collections.abc import Collection

from internvl_bridge.metadata.config_file import Config

# One repository whose modules build this language model. They serve every size of it.
_REPOSITORIES = {
    "Qwen2ForCausalLM": "OpenGVLab/InternVL3-8B",
    "Qwen3ForCausalLM": "OpenGVLab/InternVL3_5-8B",
    "Qwen3MoeForCausalLM": "OpenGVLab/InternVL3_5-30B-A3B",
    "GptOssForCausalLM": "OpenGVLab/InternVL3_5-GPT-OSS-20B-A4B-Preview",
    "LlamaForCausalLM": "OpenGVLab/InternVL2-Llama3-76B",
    "InternLM2ForCausalLM": "OpenGVLab/InternVL2_5-8B",
    "InternLM3ForCausalLM": "OpenGVLab/InternVL3-9B",
    "Phi3ForCausalLM": "OpenGVLab/InternVL2-4B",
}
_CLASSES = {
    "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
    "AutoModel": "modeling_internvl_chat.InternVLChatModel",
    "AutoModelForCausalLM": "modeling_internvl_chat.InternVLChatModel",
}


def hub_auto_map(architecture: str) -> dict[str, str]:
    """The ``auto_map`` that makes transformers fetch upstream's modules from the hub when the model is loaded."""
    return {name: f"{_REPOSITORIES[architecture]}--{reference}" for name, reference in _CLASSES.items()}


def hub_repository(config: Config) -> str | None:
    """The hub repository that the ``auto_map`` of a config names, if it names one."""
    auto_map = config.get("auto_map")
    references = [value for value in auto_map.values() if isinstance(value, str)] if isinstance(auto_map, dict) else []
    return next((reference.split("--")[0] for reference in references if "--" in reference), None)


def missing_modules(config: Config, files: Collection[str]) -> list[str]:
    """The files that the ``auto_map`` of a config expects beside it and that are not among ``files``."""
    auto_map = config.get("auto_map")
    references = [value for value in auto_map.values() if isinstance(value, str)] if isinstance(auto_map, dict) else []
    local = {f"{reference.split('.')[0]}.py" for reference in references if "--" not in reference}
    return sorted(local - set(files))
