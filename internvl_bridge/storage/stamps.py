"""What a source file was when it was read, to notice if it is another one later."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes, time of last change in nanoseconds, and checksum of the header ("" if there is none)."""

    size: int
    modified: int
    header: str = ""


def stamp_of(path: Path, header: str = "") -> Stamp:
    """The stamp of ``path`` as it is now. Raises OSError if it cannot be looked at."""
    status = path.stat()
    return Stamp(status.st_size, status.st_mtime_ns, header)


def check_unchanged(stamps: Iterable[tuple[Path, Stamp]]) -> None:
    """Raise CheckpointError for the first file whose size or time of change is not that of its stamp any more."""
    for path, stamp in stamps:
        if stamp_of(path, stamp.header) != stamp:
            raise CheckpointError(
                f"{path} was changed while it was being converted.",
                "Convert again when nothing else writes to the checkpoint.",
            )
