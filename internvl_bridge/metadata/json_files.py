"""Read the JSON files of a checkpoint, which nobody vouches for."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import CheckpointError, CompanionFileError, ConfigError
from internvl_bridge.stand_ins import POINTER_START, gone, lfs_pointer
from internvl_bridge.strict_json import parse_json_object, without_mark

Config = Mapping[str, Any]

CONFIG_FILE = "config.json"

LARGEST_JSON = 64 << 20
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class JsonFile:
    """A parsed JSON file and its exact text."""

    path: Path
    text: str
    values: Config


def read_json_file(path: Path) -> JsonFile:
    """Parse ``path`` as one JSON object.

    Raises ConfigError, or CompanionFileError for any other file than config.json, if it is missing or malformed.
    """

    def malformed(reason: str) -> CheckpointError:
        return _error(path, f"{path} cannot be used: {reason}.", "Correct it or save the checkpoint again.")

    if (lost := gone(path)) is not None:
        raise _error(path, lost.reason, lost.remedy)
    if not path.is_file():
        raise _error(
            path,
            f"{path} does not exist, or is not a file.",
            "Give the directory of a complete checkpoint.",
        )
    if path.stat().st_size > LARGEST_JSON:
        raise malformed(f"it has more than {LARGEST_JSON} bytes")
    raw = without_mark(path.read_bytes())
    _refuse_pointer(path, raw)
    return JsonFile(path, raw.decode(errors="replace"), parse_shallow_object(raw, malformed))


def parse_shallow_object(text: bytes, malformed: Callable[[str], Exception]) -> dict[str, Any]:
    """As :func:`parse_json_object`, for values that are copied and compared, by functions that call themselves."""
    value = parse_json_object(text, malformed, infinite=True)
    level: list[Any] = [value]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, (dict, list))]
        if not level:
            return value
    raise malformed("nested too deeply")


def is_present(path: Path) -> bool:
    """Whether there is a file ``path``.

    Raises as :func:`read_json_file` for something else, such as a dangling link, and for a Git LFS pointer.
    """
    if path.is_file():
        with path.open("rb") as file:
            _refuse_pointer(path, file.read(len(POINTER_START)))
        return True
    if (lost := gone(path)) is not None:
        raise _error(path, lost.reason, f"{lost.remedy} Or remove the link, to convert without the file.")
    if os.path.lexists(path):
        raise _error(
            path,
            f"{path} exists, but is not a file that can be read.",
            "Download it again, or remove it to convert without it.",
        )
    return False


def as_text(values: object) -> str:
    """``values`` as the JSON text of a file."""
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def _refuse_pointer(path: Path, start: bytes) -> None:
    if start.startswith(POINTER_START):
        refusal = lfs_pointer(path, "the file itself")
        raise _error(path, refusal.reason, refusal.remedy)


def _error(path: Path, reason: str, remedy: str) -> CheckpointError:
    kind = ConfigError if path.name == CONFIG_FILE else CompanionFileError
    return kind(reason, remedy)
