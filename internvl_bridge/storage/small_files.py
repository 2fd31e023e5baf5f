"""Write the small files beside the weights."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from internvl_bridge.errors import named

_BLOCK = 1 << 20


def write_bytes(path: Path, data: bytes) -> None:
    """Create ``path`` with ``data`` and make it durable."""
    with named(path), path.open("xb") as file:
        file.write(data)
        _sync(file)


def copy_file(source: Path, target: Path) -> None:
    """Create ``target`` with the contents of ``source``, of any size, and make it durable."""
    with named(target), source.open("rb") as ours, target.open("xb") as theirs:
        for block in _blocks(ours, source):
            theirs.write(block)
        _sync(theirs)


def write_files(
    directory: Path, texts: Mapping[str, str], copies: Iterable[Path], check: Callable[[], None] = lambda: None
) -> None:
    """Create the files ``texts`` (by name) and copies of the files ``copies`` in ``directory``, all durable.

    ``check`` is called before each; what it raises ends the work.
    """
    for path in copies:
        check()
        copy_file(path, directory / path.name)
    for name, text in texts.items():
        check()
        write_bytes(directory / name, text.encode())


def write_json(path: Path, value: object) -> None:
    """Create ``path`` with ``value`` as indented JSON, written piece by piece, and make it durable."""
    with named(path), path.open("x", encoding="utf-8") as file:
        file.writelines(json_pieces(value))
        _sync(file)


def json_pieces(value: object) -> Iterator[str]:
    """The text that :func:`write_json` writes, piece by piece."""
    yield from json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).iterencode(value)
    yield "\n"


def _blocks(file: IO[bytes], path: Path) -> Iterator[bytes]:
    with named(path):
        while block := file.read(_BLOCK):
            yield block


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())
