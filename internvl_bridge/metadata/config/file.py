"""Which of the two formats a config.json is of."""

import os
import shlex
from pathlib import Path

from internvl_bridge.errors import ConfigError, UnsupportedModelError, shown
from internvl_bridge.mapping import families
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.adapters import lone_adapter
from internvl_bridge.metadata.json_files import CONFIG_FILE, Config, JsonFile, read_json_file
from internvl_bridge.metadata.kernel_files import check_no_kernel_files
from internvl_bridge.metadata.not_a_directory import not_a_directory
from internvl_bridge.stand_ins import other_directory, pickled_files

_MODEL_TYPES = {"internvl_chat": Format.CUSTOM, "internvl": Format.HF}
_ARCHITECTURES = {Format.CUSTOM: "InternVLChatModel", Format.HF: "InternVLForConditionalGeneration"}


def read_config(directory: Path) -> JsonFile:
    """Parse ``config.json`` of ``directory``. Raises CheckpointError if it has none, or is not a directory."""
    if not directory.is_dir():
        raise not_a_directory(directory)
    check_no_kernel_files(directory)
    if not os.path.lexists(directory / CONFIG_FILE):
        other = None if _holds_weights(directory) else other_directory(directory)
        if refusal := lone_adapter(directory) or other:
            raise refusal
        raise _no_config(directory)
    return read_json_file(directory / CONFIG_FILE)


def _no_config(directory: Path) -> ConfigError:
    above = directory.absolute().parent
    place = shlex.quote(str(above)) if os.path.lexists(above / CONFIG_FILE) else "DIR"
    where = "that is the directory above" if place != "DIR" else "where DIR has the model's config.json and tokenizer"
    return ConfigError(
        f"{directory / CONFIG_FILE} does not exist.",
        f"Give the directory of a complete checkpoint. If a trainer wrote only the weights there, add --config {place} "
        f"(config=...): {where}.",
    )


def _holds_weights(directory: Path) -> bool:
    """Whether there is a file by a name that weights have: then nothing but config.json is missing."""
    names = [path.name for path in directory.iterdir() if path.is_file()]
    named = any(name.endswith(".safetensors") or name.startswith("pytorch_model") for name in names)
    return named or len(pickled_files(directory)) == 1


def detect_format(config: JsonFile) -> Format:
    """Which format ``config`` is of.

    Raises UnsupportedModelError for any other model, also for those that reuse InternVL's names.
    """
    model_type = config.values.get("model_type")
    found = _MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
    architectures = config.values.get("architectures") or ([_ARCHITECTURES[found]] if found else [])
    if found is None or architectures != [_ARCHITECTURES[found]]:
        if part := _part(model_type, architectures):
            raise UnsupportedModelError(
                f"{config.path} describes {part}, not a whole InternVL model.",
                "Save the whole model (InternVLChatModel or InternVLForConditionalGeneration), or give the checkpoint "
                "that it was taken from.",
            )
        raise UnsupportedModelError(
            f"{config.path} describes a model of type {shown(model_type)} with architectures "
            f"{shown(architectures)}. That is not an InternVL model in one of the two formats: in the custom format it "
            f"is 'internvl_chat' with InternVLChatModel, in HF 'internvl' with InternVLForConditionalGeneration.",
            "Give the directory of such a checkpoint; relatives such as Mono-InternVL, InternVL-U, "
            "Intern-S1 and Eagle are different models.",
        )
    return found


def _part(model_type: object, architectures: object) -> str | None:
    """What part of an InternVL model a config.json describes, if it is the config.json of one."""
    if model_type in ("intern_vit_6b", "internvl_vision"):
        return "a vision tower alone"
    if model_type == "internvl" and architectures == ["InternVLModel"]:
        return "a model without its output head (InternVLModel)"
    known = isinstance(model_type, str) and model_type in {family.hf_model_type for family in families.FAMILIES}
    return f"a language model alone ({model_type})" if known or model_type == "internlm2" else None


def section(config: JsonFile, name: str) -> Config:
    """The object ``name`` of ``config``. Raises ConfigError if it is not there."""
    value = config.values.get(name)
    if not isinstance(value, dict):
        raise ConfigError(
            f"{config.path} does not have an object {name!r}.",
            "Use the config.json that the checkpoint was saved with.",
        )
    return value
