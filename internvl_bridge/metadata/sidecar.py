"""The sidecar ``internvl_bridge.json``: what the output's format cannot hold, kept for the way back."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CompanionFileError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.files import text_digest
from internvl_bridge.metadata.json_files import LARGEST_JSON, is_present, read_json_file

SIDECAR_FILE = "internvl_bridge.json"

VERSION = 2
CHECKSUMS, RECORD = "checksums", "conversion"
"""What every output's sidecar has: the checksums of its files, and how they were made."""
_MOST_OF_BOTH = 1 << 20
"""Bytes that checksums and record may take."""


def sidecar_contents(
    format_: Format, family: str, kept: Mapping[str, str], written: Mapping[str, str], head: str | None = None
) -> dict[str, Any]:
    """The contents of the sidecar for a conversion of a source of format ``format_``, whose output head is ``head``.

    ``kept`` are texts of files of the source, by name: those that the output does not have as they are. ``written`` are
    the texts of those that the output has instead. Raises CompanionFileError if they are larger than a sidecar that
    would be read.
    """
    contents = {
        "version": VERSION,
        "source_format": format_.value,
        "family": family,
        "head": head,
        "files": dict(kept),
        "written": {name: text_digest(text) for name, text in sorted(written.items())},
    }
    if len(sidecar_text(contents, "", {}).encode()) > LARGEST_JSON - _MOST_OF_BOTH:
        largest = max(kept, key=lambda name: len(kept[name]))
        raise CompanionFileError(
            f"The source's texts, of which {largest} is the largest, are too large for the sidecar.",
            f"Remove what does not belong to the model from {largest}.",
        )
    return contents


def sidecar_text(contents: Mapping[str, Any], algorithm: str, checksums: Mapping[str, str]) -> str:
    """The sidecar with these ``contents``, as it is written, with the checksum of every other file of the output."""
    manifest = {"algorithm": algorithm, "files": dict(sorted(checksums.items()))}
    return json.dumps({"version": VERSION, **contents, CHECKSUMS: manifest}, indent=2, ensure_ascii=False) + "\n"


def repaired_contents(directory: Path) -> dict[str, Any]:
    """What a repair hands on of the sidecar in ``directory``: all that the way back needs.

    The sidecar must be there and usable.
    """
    contents = read_json_file(directory / SIDECAR_FILE).values
    return {name: value for name, value in contents.items() if name not in {CHECKSUMS, RECORD}}


def read_checksums(directory: Path) -> tuple[str, dict[str, str]] | None:
    """Algorithm and checksums, by name, that the sidecar in ``directory`` states; None without one or without any.

    Raises CompanionFileError if they are malformed.
    """
    path = directory / SIDECAR_FILE
    stated = read_json_file(path).values.get(CHECKSUMS) if is_present(path) else None
    match stated:
        case None:
            return None
        case {"algorithm": str(algorithm), "files": dict(files)} if all(
            isinstance(text, str) and _is_file_name(name) for name, text in files.items()
        ):
            return algorithm, files
        case _:
            raise unusable(path, "its checksums are not a map of file names to texts")


def _is_file_name(name: str) -> bool:
    return Path(name).name == name and name not in {"", ".."} and "\0" not in name


def unusable(path: Path, reason: str) -> CompanionFileError:
    """The refusal of the sidecar ``path``."""
    return CompanionFileError(
        f"{path} cannot be used: {reason}.",
        "Remove it to convert without it; what only it knows is then filled in with defaults.",
    )
