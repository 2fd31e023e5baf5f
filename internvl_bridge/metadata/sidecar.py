"""The sidecar ``internvl_bridge.json``: what the output's format cannot hold, kept for the way back."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_bridge.errors import BridgeError, ConfigError
from internvl_bridge.metadata.config_file import CONFIG_FILE, ConfigFile, Format, is_present, read_json_file
from internvl_bridge.metadata.described import Described, describe
from internvl_bridge.metadata.expressible import check_expressible
from internvl_bridge.metadata.families import family_named
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
    """How the other format describes this model, and its files, verbatim, by name.

    ``origin`` is the file or directory it was read from.
    """

    origin: Path
    files: Mapping[str, str]
    described: Described


def kept_files(format_: Format) -> tuple[str, ...]:
    """Names of the files of a checkpoint of this format that its sidecar keeps verbatim."""
    return _KEPT[format_]


def sidecar_text(source: Path, format_: Format, family: str) -> str:
    """The contents of the sidecar for a conversion of ``source``, which is of format ``format_``."""
    files = {name: read_json_file(source / name).text for name in _KEPT[format_] if is_present(source / name)}
    contents = {"version": _VERSION, "source_format": format_.value, "family": family, "files": files}
    return json.dumps(contents, indent=2, ensure_ascii=False) + "\n"


def read_sidecar(directory: Path, wanted: Format) -> Complement | None:
    """The complement beside a checkpoint, if there is one and it describes the format ``wanted``.

    Raises a BridgeError if there is one that is malformed, of another version, or contradicts itself.
    """
    path = directory / SIDECAR_FILE
    if not is_present(path):
        return None
    contents = read_json_file(path).values
    if type(contents.get("version")) is not int or contents["version"] != _VERSION:
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
    kept = {name: text for name, text in files.items() if name in _KEPT[wanted]}
    parsed = {name: _parsed(path, name, text) for name, text in kept.items()}
    described = _described(ConfigFile(path, kept[CONFIG_FILE], parsed[CONFIG_FILE]), wanted, family)
    return Complement(path, kept, described)


def _parsed(path: Path, name: str, text: str) -> dict[str, Any]:
    return parse_json_object(text.encode(errors="replace"), lambda why: _unusable(path, f"the {name} in it is {why}"))


def reference_complement(config: ConfigFile, wanted: Format, keys: Iterable[str]) -> Complement:
    """The complement that a reference model provides: its config.json, and the family of its ``keys``.

    Raises a BridgeError unless it is of the format ``wanted``.
    """
    described = describe(config, keys)
    if described.format is not wanted:
        raise ConfigError(
            f"The reference {config.path.parent} is not in the {wanted.value} format, which the output will have.",
            "Give the directory of a model in the output's format.",
        )
    check_expressible(described)
    return Complement(config.path.parent, {CONFIG_FILE: config.text}, described)


def _described(config: ConfigFile, wanted: Format, recorded: str) -> Described:
    """The config in a sidecar, which must be of the family that the sidecar records."""
    family = family_named(recorded)
    if family is None:
        raise _unusable(config.path, f"it records the unknown family {recorded[:80]!r}")
    try:
        described = describe(config, twin=family)
        check_expressible(described)
    except BridgeError as error:
        raise _unusable(config.path, f"the config.json in it is refused: {error.reason.removesuffix('.')}") from error
    if described.format is not wanted:
        raise _unusable(config.path, f"its config.json is not of the {wanted.value} format")
    if described.family.architecture != family.architecture:
        raise _unusable(
            config.path, f"it records the family {family.name}, but its config.json is of {described.family.name}"
        )
    return replace(described, family=family)


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used: {reason}.",
        "Remove it to convert without it; what only it knows is then filled in with defaults.",
    )
