"""Take the checksum of a file on disk."""

from pathlib import Path

from internvl_bridge.progress import Advance
from internvl_bridge.storage.checkpoint import Piece
from internvl_bridge.storage.checksums import new_checksum, seen
from internvl_bridge.storage.reading import FileReader


def file_checksum(path: Path, readers: FileReader, advance: Advance) -> str:
    """The checksum of the file ``path``, of any size. Raises OSError, naming it, if it cannot be read."""
    checksum = new_checksum()
    for window in seen(readers.windows([Piece(path, 0, path.stat().st_size)]), checksum):
        advance(len(window))
    return checksum.hexdigest()
