"""Remember files of a source that a run has deleted, until its output is complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.checksums import checksum_of
from internvl_bridge.storage.consumed_file import ConsumedFile
from internvl_bridge.storage.durability import sync_directory
from internvl_bridge.storage.header import LENGTH_PREFIX
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.journal import JOURNAL, read_journal
from internvl_bridge.storage.local_files import LocalFiles
from internvl_bridge.storage.output_place import is_plain_directory, partial_path
from internvl_bridge.storage.small_files import write_bytes
from internvl_bridge.storage.workspace import HEADERS


@dataclass(frozen=True, slots=True)
class Consumption:
    """What an earlier run has deleted of a source: the files, and the bytes of each before its data section, by name.

    Files that are there again have no ``starts``. ``remembered`` is what that run knew and only the deleted data shows.
    """

    files: Mapping[str, ConsumedFile]
    starts: Mapping[str, bytes]
    remembered: Mapping[str, Any]

    def is_gone(self, path: Path) -> bool:
        """Whether ``path`` was deleted, and is not there again."""
        return path.name in self.starts and not path.exists()


def begun_consumption(source: Path, output: Path) -> Consumption | None:
    """What an unfinished run for ``output`` has deleted of ``source``; None if nothing.

    Raises OutputError if what it has kept of a deleted file is damaged.
    """
    partial = partial_path(output)
    if not is_plain_directory(partial) or not (partial / JOURNAL).is_file():
        return None
    try:
        found = read_journal(partial / JOURNAL)
    except OutputError:  # whoever wants to work there is told
        return None
    if found is None or not found.consumed or found.source_directory != str(source.resolve()):
        return None
    gone = {name: file for name, file in found.consumed.items() if not (source / name).exists()}
    starts = {name: _start(partial, file) for name, file in gone.items()}
    return Consumption(found.consumed, starts, found.remembered)


def keep_start(around: HeldDirectory, name: str, start: bytes) -> None:
    """Keep ``start``, the bytes of the file ``name`` before its data section, in the workspace; make that durable."""
    around.make(HEADERS)
    with held(around.path / HEADERS, around) as headers:
        if headers.found(name) is not None:
            headers.remove(name)
        write_bytes(headers.path / name, start, LocalFiles(directory=headers))
        sync_directory(headers.path)
    sync_directory(around.path)


def _start(partial: Path, file: ConsumedFile) -> bytes:
    path = partial / HEADERS / file.name
    start = path.read_bytes() if path.is_file() else b""
    if checksum_of([start[LENGTH_PREFIX:]]) != file.header:
        raise OutputError(
            f"{path} is not what was kept of {file.name}, which --consume has deleted.",
            f"Bring {file.name} back from another copy of the source, and give the same command again.",
        )
    return start
