"""Notice files that are not complete, although they have their whole size: downloads, and holes."""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from internvl_bridge.errors import CheckpointError
from internvl_bridge.storage.block_alignment import BLOCK
from internvl_bridge.storage.source_shards import StoredTensor

_CONTROL_FILES = (".aria2", ".incomplete", ".part")
"""What downloaders keep beside a file until it is complete; aria2 gives the file its whole size at once."""


def check_downloaded(paths: Iterable[Path]) -> None:
    """Raise CheckpointError if a downloader has not finished one of ``paths``."""
    for path in paths:
        for suffix in _CONTROL_FILES:
            control = path.with_name(path.name + suffix)
            if control.exists():
                raise CheckpointError(
                    f"{control} is there, so that the download of {path.name} is not finished.",
                    "Finish the download, or get the file again; if it is complete, remove the file beside it.",
                )


def holes(tensors: Mapping[str, StoredTensor]) -> list[str]:
    """The keys of those ``tensors`` of at least one block that no program has written: their file has a hole there.

    A hole reads as zeros. Copies leave out zeros, too (``cp --sparse``, ``rsync -S``), and so does ZFS. Where the file
    system does not show holes, there are none.
    """
    by_file: dict[Path, list[tuple[int, int, str]]] = {}
    for key, tensor in tensors.items():
        if tensor.data.length >= BLOCK:
            by_file.setdefault(tensor.data.path, []).append((tensor.data.offset, tensor.data.length, key))
    return [key for path, places in by_file.items() for key in _holes(path, places)]


def _holes(path: Path, places: Iterable[tuple[int, int, str]]) -> list[str]:
    with path.open("rb", buffering=0) as file:
        handle, size = file.fileno(), os.fstat(file.fileno()).st_size
        try:
            if os.lseek(handle, 0, os.SEEK_HOLE) >= size:
                return []
            return [*_between_data(handle, size, places)]
        except (OSError, AttributeError):
            return []


def _between_data(handle: int, size: int, places: Iterable[tuple[int, int, str]]) -> Iterator[str]:
    """The keys of those ``places`` of the open file, in its order, of which no byte was written."""
    asked = data = -1
    for offset, length, key in places:
        if not asked <= offset <= data:  # else the answer is the same: a hole can have thousands of tensors
            asked, data = offset, _next_data(handle, offset, size)
        if data >= offset + length:
            yield key


def _next_data(handle: int, offset: int, size: int) -> int:
    """Where from ``offset`` on the first byte was written; the end of the file if none was."""
    try:
        return os.lseek(handle, offset, os.SEEK_DATA)
    except OSError:  # ENXIO: there is a hole up to the end
        return size
