"""Write the small files beside the weights."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from internvl_bridge.errors import named
from internvl_bridge.storage.file_system import FileSystem
from internvl_bridge.storage.local_files import LOCAL
from internvl_bridge.work.progress import Advance, silent
from internvl_bridge.work.workers import in_parallel

_BLOCK = 1 << 20
_AT_ONCE = 8
"""Small files that wait for the disk together."""


def write_bytes(path: Path, data: bytes, files: FileSystem = LOCAL) -> None:
    """Create ``path`` in ``files`` with ``data`` and make it durable."""
    _write(path, [data], files)


def write_pieces(path: Path, pieces: Iterable[bytes | bytearray], files: FileSystem = LOCAL) -> None:
    """Create ``path`` in ``files`` with all ``pieces``, one after the other, and make it durable."""
    _write(path, pieces, files)


def copy_file(source: Path, target: Path, files: FileSystem = LOCAL) -> None:
    """Create ``target`` in ``files`` with the contents of ``source``, of any size, and make it durable."""
    _write(target, _contents(source), files)


def write_files(
    directory: Path,
    texts: Mapping[str, str],
    copies: Iterable[Path],
    check: Callable[[], None] = lambda: None,
    files: FileSystem = LOCAL,
) -> None:
    """Create the files ``texts`` (by name) and copies of the files ``copies`` in ``directory``, all durable.

    Several at a time: to make a small file durable is to wait for the disk. ``check`` is called before each; what it
    raises ends the work.
    """
    works = [
        *(partial(copy_file, path, directory / path.name, files) for path in copies),
        *(partial(write_bytes, directory / name, text.encode(), files) for name, text in texts.items()),
    ]

    def checked(work: Callable[[], None], _: Advance) -> None:
        check()
        work()

    in_parallel(checked, works, _AT_ONCE, silent("Writing", 0, len(works)))


def write_json(path: Path, value: object, files: FileSystem = LOCAL) -> None:
    """Create ``path`` in ``files`` with ``value`` as indented JSON, written piece by piece, and make it durable."""
    _write(path, _blocks(json_pieces(value)), files)


def json_pieces(value: object) -> Iterator[str]:
    """The text that :func:`write_json` writes, piece by piece."""
    yield from json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False).iterencode(value)
    yield "\n"


def _contents(path: Path) -> Iterator[bytes]:
    with named(path), path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _blocks(pieces: Iterable[str]) -> Iterator[bytes]:
    """The text of many short ``pieces``, in few long ones."""
    block = bytearray()
    for piece in pieces:
        block += piece.encode()
        if len(block) >= _BLOCK:
            yield bytes(block)
            block.clear()
    yield bytes(block)


def _write(path: Path, blocks: Iterable[bytes | bytearray | memoryview], files: FileSystem) -> None:
    with files.create(path) as sink:
        offset = 0
        for block in blocks:
            offset += sink.write(memoryview(block), offset)
        sink.finish()
