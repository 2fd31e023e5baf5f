"""The sidecar ``internvl_bridge.json``: what the output's format cannot hold, kept for the way back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import ConfigError
from internvl_bridge.metadata.config_file import (
    CONFIG_FILE,
    Config,
    ConfigFile,
    Format,
    detect_format,
    read_json_file,
    sections,
)
from internvl_bridge.strict_json import parse_json_object

SIDECAR_FILE = "internvl_bridge.json"

# What only one of the formats has, and small enough to keep verbatim.
_KEPT = {
    Format.CUSTOM: (CONFIG_FILE, "preprocessor_config.json"),
    Format.HF: (
        CONFIG_FILE,
        "processor_config.json",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
    ),
}
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Complement:
    """How the other format described this model: its family and its files, verbatim, by name.

    ``origin`` is the file or directory it was read from.
    """

    origin: Path
    family: str
    files: Mapping[str, str]
    config: Config


def kept_files(format_: Format) -> tuple[str, ...]:
    """Names of the files of a checkpoint of this format that its sidecar keeps verbatim."""
    return _KEPT[format_]


def sidecar_text(source: Path, format_: Format, family: str) -> str:
    """The contents of the sidecar for a conversion of ``source``, which is of format ``format_``."""
    files = {name: read_json_file(source / name).text for name in _KEPT[format_] if (source / name).is_file()}
    contents = {"version": _VERSION, "source_format": format_.value, "family": family, "files": files}
    return json.dumps(contents, indent=2, ensure_ascii=False) + "\n"


def read_sidecar(directory: Path, wanted: Format) -> Complement | None:
    """The complement beside a checkpoint, if there is one and it describes the format ``wanted``.

    Raises ConfigError if there is one that is malformed or of a newer version.
    """
    path = directory / SIDECAR_FILE
    if not path.is_file():
        return None
    contents = read_json_file(path).values
    if contents.get("version") != _VERSION:
        raise _unusable(path, f"it has version {contents.get('version')!r}, this program knows {_VERSION}")
    match contents:
        case {
            "source_format": str(format_),
            "family": str(family),
            "files": {"config.json": str(), **others},
        }:
            files = contents["files"]
        case _:
            raise _unusable(path, "it lacks its source_format, family or files")
    if not all(isinstance(text, str) for text in others.values()):
        raise _unusable(path, "its files are not texts")
    if format_ != wanted.value:
        return None
    text = files[CONFIG_FILE]
    config = ConfigFile(path, text, parse_json_object(text.encode(), lambda why: _unusable(path, why)))
    sections(config)
    if detect_format(config) is not wanted:
        raise _unusable(path, f"its config.json is not of the {wanted.value} format")
    kept = {name: text for name, text in files.items() if name in _KEPT[wanted]}
    return Complement(path, family, kept, config.values)


def reference_complement(reference: ConfigFile, family: str) -> Complement:
    """The complement that a reference model provides: its config.json."""
    return Complement(reference.path.parent, family, {CONFIG_FILE: reference.text}, reference.values)


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used: {reason}.",
        "Remove it to convert without it; what only it knows is then filled in with defaults.",
    )
