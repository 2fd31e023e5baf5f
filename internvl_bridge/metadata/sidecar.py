"""The sidecar ``internvl_bridge.json``: what the output's format cannot hold, kept for the way back."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from internvl_bridge.errors import BridgeError, ConfigError, shown
from internvl_bridge.mapping.families import family_named
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.chat.generation import GENERATION_FILE
from internvl_bridge.metadata.config.description import ModelDescription, describe
from internvl_bridge.metadata.config.file import (
    CONFIG_FILE,
    LARGEST_JSON,
    ConfigFile,
    is_present,
    parse_shallow_object,
    read_json_file,
)
from internvl_bridge.metadata.config.unsupported import check_expressible
from internvl_bridge.metadata.files import TOKENIZER_CONFIG_FILE, digest, is_text_name, present, text_digest
from internvl_bridge.metadata.processor.files import HF_PROCESSOR_FILES, PREPROCESSOR_FILE

SIDECAR_FILE = "internvl_bridge.json"

_VERSION = 2
_CHECKSUMS = "checksums"
_MOST_CHECKSUMS = 1 << 20
"""Bytes that the checksums of an output may take."""


@dataclass(frozen=True, slots=True)
class OtherFormat:
    """How the other format describes this model, and its files, verbatim, by name.

    ``origin`` is the file or directory it was read from. ``written`` are the digests of the files that were made
    from those: one that still has its digest has not been touched since. ``head`` says what its output head was
    ("own", "shared" or "copy"), None if that is not known. A reference model gives its config.json and its processor,
    and leaves the rest to a sidecar.
    """

    origin: Path
    files: Mapping[str, str]
    description: ModelDescription
    written: Mapping[str, str]
    head: str | None = None
    is_reference: bool = False

    def restored(
        self, directory: Path, names: Collection[str], translated: Collection[str] = ()
    ) -> dict[str, str] | None:
        """The files ``names`` as they were, if what was made from them in ``directory`` is untouched.

        None if one of those was changed, removed or added since, or if none was made. ``translated`` are those of
        ``names`` that no conversion carries over as they are.
        """
        made = self.written.keys() & set(names)
        if not made or any(digest(directory / name) != self.written.get(name) for name in made | set(translated)):
            return None
        return {name: text for name, text in self.files.items() if name in names}


def sidecar_contents(
    format_: Format, family: str, kept: Mapping[str, str], written: Mapping[str, str], head: str | None = None
) -> dict[str, Any]:
    """The contents of the sidecar for a conversion of a source of format ``format_``, whose output head is ``head``.

    ``kept`` are the texts of those files of the source that the output does not have as they are, by name, and
    ``written`` the texts of those that the output has instead. Raises ConfigError if they are larger than any
    :func:`read_sidecar` would read.
    """
    contents = {
        "version": _VERSION,
        "source_format": format_.value,
        "family": family,
        "head": head,
        "files": dict(kept),
        "written": {name: text_digest(text) for name, text in sorted(written.items())},
    }
    if len(sidecar_text(contents, "", {}).encode()) > LARGEST_JSON - _MOST_CHECKSUMS:
        largest = max(kept, key=lambda name: len(kept[name]))
        raise ConfigError(
            f"The source's texts, of which {largest} is the largest, are too large for the sidecar.",
            f"Remove what is no part of the model from {largest}.",
        )
    return contents


def sidecar_text(contents: Mapping[str, Any], algorithm: str, checksums: Mapping[str, str]) -> str:
    """The sidecar with these ``contents``, as it is written, with the checksum of every other file of the output."""
    manifest = {"algorithm": algorithm, "files": dict(sorted(checksums.items()))}
    return json.dumps({"version": _VERSION, **contents, "checksums": manifest}, indent=2, ensure_ascii=False) + "\n"


def repaired_contents(directory: Path) -> dict[str, Any]:
    """What a repair hands on of the sidecar in ``directory``: all that tells the way back, and no checksums.

    The sidecar must be there and usable.
    """
    return {
        name: value for name, value in read_json_file(directory / SIDECAR_FILE).values.items() if name != _CHECKSUMS
    }


def read_checksums(directory: Path) -> tuple[str, dict[str, str]] | None:
    """Algorithm and checksums, by name, that the sidecar in ``directory`` states; None without one or without any.

    Raises ConfigError if they are malformed.
    """
    path = directory / SIDECAR_FILE
    stated = read_json_file(path).values.get(_CHECKSUMS) if is_present(path) else None
    match stated:
        case None:
            return None
        case {"algorithm": str(algorithm), "files": dict(files)} if all(
            isinstance(text, str) and _is_file_name(name) for name, text in files.items()
        ):
            return algorithm, files
        case _:
            raise _unusable(path, "its checksums are not a map of file names to texts")


def read_sidecar(directory: Path, wanted: Format) -> OtherFormat | None:
    """The complement beside a checkpoint, if there is one and it describes the format ``wanted``.

    Raises a BridgeError if there is one that is malformed, of another version, or contradicts itself.
    """
    path = directory / SIDECAR_FILE
    if not is_present(path):
        return None
    try:
        contents = read_json_file(path).values
    except ConfigError as error:
        raise _unusable(path, error.reason.partition("cannot be used: ")[2].removesuffix(".")) from error
    if type(contents.get("version")) is not int or contents["version"] != _VERSION:
        raise _unusable(path, f"it has version {contents.get('version')!r}, this program knows {_VERSION}")
    if contents.keys() <= {"version", _CHECKSUMS}:  # of a repair: it tells nothing about a twin
        return None
    match contents:
        case {
            "source_format": str(format_),
            "family": str(family),
            "files": {"config.json": str(), **others},
            "written": dict(),
        }:
            files, written = contents["files"], contents["written"]
        case _:
            raise _unusable(path, "it lacks its source_format, family, files or written")
    _check_files(path, files, (*others.values(), *written.values()))
    if format_ not in {format_.value for format_ in Format}:
        raise _unusable(path, f"it describes the unknown format {shown(format_)}")
    if format_ != wanted.value:
        return None
    read = {
        TOKENIZER_CONFIG_FILE,
        GENERATION_FILE,
        *(HF_PROCESSOR_FILES if wanted is Format.HF else [PREPROCESSOR_FILE]),
    }
    for name in files.keys() & read:
        _parsed(path, name, files[name])
    config = ConfigFile(path, files[CONFIG_FILE], _parsed(path, CONFIG_FILE, files[CONFIG_FILE]))
    head = contents.get("head")
    return OtherFormat(
        path, files, _described(config, wanted, family), written, head if isinstance(head, str) else None
    )


def _is_file_name(name: str) -> bool:
    return Path(name).name == name and name not in {"", ".."} and "\0" not in name


def _check_files(path: Path, files: Mapping[str, object], values: Iterable[object]) -> None:
    if not all(isinstance(text, str) for text in values):
        raise _unusable(path, "its files are not texts")
    if foreign := [name for name in files if not is_text_name(name) or name == SIDECAR_FILE]:
        raise _unusable(path, f"it holds {shown(foreign[0])}, which is not the name of a text file")


def _parsed(path: Path, name: str, text: str) -> dict[str, Any]:
    return parse_shallow_object(
        text.encode(errors="replace"), lambda why: _unusable(path, f"the {name} in it is {why}")
    )


def reference_as_other_format(
    config: ConfigFile, wanted: Format, keys: Iterable[str], sidecar: OtherFormat | None = None
) -> OtherFormat:
    """The complement that a reference model provides: its config.json, and the family of its ``keys``.

    What else a ``sidecar`` of the same family keeps is still restored. Raises a BridgeError unless the reference is of
    the format ``wanted``.
    """
    description = describe(config, keys)
    if description.format is not wanted:
        raise ConfigError(
            f"The reference {config.path.parent} is not in the {wanted.value} format, which the output will have.",
            "Give the directory of a model in the output's format.",
        )
    check_expressible(description)
    home = config.path.parent
    files = {path.name: read_json_file(path).text for path in present(home, HF_PROCESSOR_FILES)}
    kept, written, head = {}, {}, None
    if sidecar is not None and sidecar.description.family.hf_model_type == description.family.hf_model_type:
        kept, written, head = dict(sidecar.files), dict(sidecar.written), sidecar.head
    return OtherFormat(home, {**kept, **files, CONFIG_FILE: config.text}, description, written, head, is_reference=True)


def _described(config: ConfigFile, wanted: Format, recorded: str) -> ModelDescription:
    """The config in a sidecar, which must be of the family that the sidecar records."""
    family = family_named(recorded)
    if family is None:
        raise _unusable(config.path, f"it records the unknown family {recorded[:80]!r}")
    try:
        description = describe(config, twin=family)
        check_expressible(description)
    except BridgeError as error:
        raise _unusable(config.path, f"the config.json in it is refused: {error.reason.removesuffix('.')}") from error
    if description.format is not wanted:
        raise _unusable(config.path, f"its config.json is not of the {wanted.value} format")
    if description.family.architecture != family.architecture:
        raise _unusable(
            config.path, f"it records the family {family.name}, but its config.json is of {description.family.name}"
        )
    return replace(description, family=family)


def _unusable(path: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{path} cannot be used: {reason}.",
        "Remove it to convert without it; what only it knows is then filled in with defaults.",
    )
