"""Write the small files beside the weights."""

import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

from internvl_bridge.storage.naming import named


def write_bytes(path: Path, data: bytes) -> None:
    """Create ``path`` with ``data`` and make it durable."""
    with named(path), path.open("xb") as file:
        file.write(data)
        _sync(file)


def copy_file(source: Path, target: Path) -> None:
    """Create ``target`` with the contents of ``source``, of any size, and make it durable."""
    with named(target), source.open("rb") as ours, target.open("xb") as theirs:
        shutil.copyfileobj(ours, theirs)
        _sync(theirs)


def write_json(path: Path, value: object) -> None:
    """Create ``path`` with ``value`` as indented JSON, written piece by piece, and make it durable."""
    with named(path), path.open("x", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        _sync(file)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
