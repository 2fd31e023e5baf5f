"""Read config.json and tell which of the two formats it belongs to."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CheckpointError, CompanionFileError, ConfigError, UnsupportedModelError, shown
from internvl_bridge.mapping.formats import Format
from internvl_bridge.strict_json import parse_json_object

Config = Mapping[str, Any]

CONFIG_FILE = "config.json"

LARGEST_JSON = 64 << 20
_DEEPEST = 64


_MODEL_TYPES = {"internvl_chat": Format.CUSTOM, "internvl": Format.HF}
_ARCHITECTURES = {Format.CUSTOM: "InternVLChatModel", Format.HF: "InternVLForConditionalGeneration"}


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A parsed JSON file and its exact text."""

    path: Path
    text: str
    values: Config


def read_json_file(path: Path) -> ConfigFile:
    """Parse ``path`` as one JSON object.

    Raises ConfigError, or CompanionFileError for any other file than config.json, if it is missing or malformed.
    """

    def malformed(reason: str) -> CheckpointError:
        return _error(path, f"{path} cannot be used: {reason}.", "Correct it or save the checkpoint again.")

    if not path.is_file():
        raise _error(
            path,
            f"{path} is not there, or is no file.",
            "Give the directory of a complete checkpoint. Copy the file there if a trainer wrote only the weights.",
        )
    if path.stat().st_size > LARGEST_JSON:
        raise malformed(f"it has more than {LARGEST_JSON} bytes")
    raw = path.read_bytes()
    return ConfigFile(path, raw.decode(errors="replace"), parse_shallow_object(raw, malformed))


def parse_shallow_object(text: bytes, malformed: Callable[[str], Exception]) -> dict[str, Any]:
    """As :func:`parse_json_object`, for values that are copied and compared, by functions that call themselves."""
    value = parse_json_object(text, malformed)
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, (dict, list))]
        if not level:
            return value
    raise malformed("nested too deeply")


def is_present(path: Path) -> bool:
    """Whether there is a file ``path``. Raises as :func:`read_json_file` for something else, as a dangling link."""
    if path.is_file():
        return True
    if os.path.lexists(path):
        raise _error(
            path,
            f"{path} is there, but is no file that can be read (a link to a file that is gone?).",
            "Download it again, or remove it to convert without it.",
        )
    return False


def _error(path: Path, reason: str, remedy: str) -> CheckpointError:
    kind = ConfigError if path.name == CONFIG_FILE else CompanionFileError
    return kind(reason, remedy)


def read_config(directory: Path) -> ConfigFile:
    """Parse ``config.json`` of ``directory``. Raises CheckpointError if that is not a directory, or has none."""
    if not directory.is_dir():
        raise CheckpointError(
            f"{directory} is no directory.",
            "Give that of a checkpoint. Names of hub repositories are not downloaded; 'hf download NAME --local-dir "
            "DIRECTORY' does that.",
        )
    return read_json_file(directory / CONFIG_FILE)


def detect_format(config: ConfigFile) -> Format:
    """Which format ``config`` is of.

    Raises UnsupportedModelError for any other model, also for those that reuse InternVL's names.
    """
    model_type = config.values.get("model_type")
    found = _MODEL_TYPES.get(model_type) if isinstance(model_type, str) else None
    architectures = config.values.get("architectures") or ([_ARCHITECTURES[found]] if found else [])
    if found is None or architectures != [_ARCHITECTURES[found]]:
        raise UnsupportedModelError(
            f"{config.path} describes a model of type {shown(model_type)} with architectures "
            f"{shown(architectures)}, "
            f"not an InternVL model in the custom format ('internvl_chat', InternVLChatModel) or in the HF "
            f"format ('internvl', InternVLForConditionalGeneration).",
            "Give the directory of such a checkpoint; relatives such as Mono-InternVL, InternVL-U, "
            "Intern-S1 and Eagle are different models.",
        )
    return found


def section(config: ConfigFile, name: str) -> Config:
    """The object ``name`` of ``config``. Raises ConfigError if it is not there."""
    value = config.values.get(name)
    if not isinstance(value, dict):
        raise ConfigError(
            f"{config.path} has no object {name!r}.",
            "Use the config.json that the checkpoint was saved with.",
        )
    return value


def as_text(values: object) -> str:
    """``values`` as the JSON text of a file."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
