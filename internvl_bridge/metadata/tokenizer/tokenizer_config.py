"""tokenizer_config.json: which tokens it declares, and in whose words.

transformers 4 calls special tokens without a role ``additional_special_tokens``, those with one
``extra_special_tokens`` (an object); transformers 5 writes ``extra_special_tokens`` (a list) and
``model_specific_special_tokens``, which transformers 4 cannot read. Both read the former.
"""

from typing import Any

from internvl_bridge.metadata.json_files import Config

IMAGE_START, IMAGE_END, IMAGE_CONTEXT, VIDEO = "<img>", "</img>", "<IMG_CONTEXT>", "<video>"

DECLARED = {
    "context_image_token": IMAGE_CONTEXT,
    "end_image_token": IMAGE_END,
    "start_image_token": IMAGE_START,
    "video_token": VIDEO,
}
"""The attributes of a tokenizer that HF's InternVLProcessor asks for."""

GENERIC_CLASS = "PreTrainedTokenizerFast"
"""The one class that takes tokenizer.json as it stands in transformers 4 and 5 alike.

Those named after models rebuild parts of it, by rules that changed with version 5.
"""

_ONLY_5 = ("backend", "is_local", "local_files_only")
_ONLY_OTHER_CLASSES = ("add_bos_token", "add_eos_token", "legacy", "sp_model_kwargs")
# What the other classes say when tokenizer_config.json is silent.
_SILENT_DEFAULTS: dict[str, dict[str, str]] = {
    "LlamaTokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "padding_side": "left"},
    "InternLM2Tokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"},
    "InternLM3Tokenizer": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "pad_token", "unk_token"), "<|endoftext|>"),
}


def in_old_spelling(config: Config) -> dict[str, Any]:
    """``config`` as transformers 4 would have written it."""
    result = {name: value for name, value in config.items() if name not in _ONLY_5}
    if isinstance(result.get("extra_special_tokens"), list):
        tokens = result.pop("extra_special_tokens")
        result.setdefault("additional_special_tokens", tokens)
    named, extra = result.pop("model_specific_special_tokens", None), result.get("extra_special_tokens")
    if isinstance(named, dict):
        result["extra_special_tokens"] = {**(extra if isinstance(extra, dict) else {}), **named}
    if result.get("tokenizer_class") == "TokenizersBackend":
        result["tokenizer_class"] = GENERIC_CLASS
    return result


def class_name(config: Config) -> str:
    """The tokenizer's class, be it the fast one or the slow one."""
    return str(config.get("tokenizer_class", "")).removesuffix("Fast")


def special_token(config: Config, role: str, default: str) -> str:
    """The text of the token with this role, be it stated alone or with its flags."""
    stated = config.get(role, default)
    text = stated.get("content") if isinstance(stated, dict) else stated
    return text if isinstance(text, str) else default


def for_hf(config: Config, *, has_json: bool) -> dict[str, Any]:
    """A tokenizer_config.json that declares what HF's processor needs, and needs no remote code.

    ``has_json``: there is a tokenizer.json, so that the generic class will do. The chat template has a file of its
    own.
    """
    result = in_old_spelling(config)
    result.pop("auto_map", None)
    result.pop("chat_template", None)
    if has_json:
        result = _for_generic_class(result)
    extra = result.get("extra_special_tokens")
    result["extra_special_tokens"] = {**(extra if isinstance(extra, dict) else {}), **DECLARED}
    return result


def _for_generic_class(config: Config) -> dict[str, Any]:
    """``config`` such that :data:`GENERIC_CLASS` reads it as the class that it names would have."""
    result = {name: value for name, value in config.items() if name not in _ONLY_OTHER_CLASSES}
    result = {**_SILENT_DEFAULTS.get(class_name(config), {}), **result}
    result.setdefault("model_input_names", ["input_ids", "attention_mask"])
    return {**result, "tokenizer_class": GENERIC_CLASS}


def for_custom(config: Config, chat_template: str | None, *, has_slow_files: bool) -> dict[str, Any]:
    """A tokenizer_config.json of the custom format, which has no processor and states the template itself.

    ``has_slow_files``: there is more than tokenizer.json, so that upstream's ``use_fast=False`` finds what it needs.
    """
    result = without_declared(in_old_spelling(config))
    if not has_slow_files:
        result = _for_generic_class(result)
    result.pop("processor_class", None)
    extra = result.pop("extra_special_tokens", None)
    if isinstance(extra, dict) and (others := without_declared(extra)):
        result["extra_special_tokens"] = others
    if chat_template is not None:
        result["chat_template"] = chat_template
    return result


def without_declared(values: Config) -> dict[str, Any]:
    """``values`` without the attributes that only HF's processor asks for."""
    return {name: value for name, value in values.items() if name not in DECLARED}
