"""What a source file was when it was read, to notice if it is another one later."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from internvl_bridge.errors import CheckpointError

_CLOCK_STEP, _COARSE_STEP = 20_000_000, 2_000_000_000
"""Nanoseconds within which a file system may give two changes one time: usually, and where it counts whole seconds."""
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Stamp:
    """Size in bytes, time of last change in nanoseconds, and checksum of the header ("" if there is none).

    Two stamps are equal if these are. They stay when a file is copied with its times, so that they identify a source
    between runs and machines. Within a run a source has more: ``place`` is its device and inode, ``changed`` the time
    of the last change of anything about it, in nanoseconds. Programs cannot set that one.
    """

    size: int
    modified: int
    header: str = ""
    place: tuple[int, int] = field(default=(0, 0), compare=False)
    changed: int = field(default=0, compare=False)

    def is_touched(self, now: "Stamp") -> bool:
        """Whether the file with the stamp ``now`` may be another one, although its size and time are the same."""
        return (self.place, self.changed) != (now.place, now.changed)


def stamp_of(path: Path, header: str = "") -> Stamp:
    """The stamp of ``path`` as it is now. Raises OSError if it cannot be looked at."""
    return stamp_from(path.stat(), header)


def settled_stamp(path: Path, header: str = "") -> Stamp:
    """A stamp of ``path`` that every later change of its data makes another one.

    What is written through a mapping of memory changes no time before the system writes it out: so that is done first.
    A change within the same step of the file system's clock would have the same time, so that step is awaited. Raises
    CheckpointError if the file is being written, and OSError if it cannot be opened.
    """
    with path.open("rb", buffering=0) as file:
        with suppress(OSError):  # some file systems cannot, for a file that is open for reading
            os.fsync(file.fileno())
        stamp = stamp_from(os.fstat(file.fileno()), header)
        for _ in range(_LOOKS):
            step = _CLOCK_STEP if stamp.changed % 1_000_000_000 else _COARSE_STEP
            age = time.time_ns() - stamp.changed
            if age >= step:
                return stamp
            time.sleep(min(step - age, step) / 1e9)
            before, stamp = stamp, stamp_from(os.fstat(file.fileno()), header)
            if stamp == before and not stamp.is_touched(before):  # also by a clock that is ahead of ours
                return stamp
    raise changed_meanwhile(path)


def check_unchanged(stamps: Iterable[tuple[Path, Stamp]]) -> None:
    """Raise CheckpointError for the first file whose size or time of change is not that of its stamp any more."""
    for _ in touched(stamps):
        pass


def touched(stamps: Iterable[tuple[Path, Stamp]]) -> Iterator[Path]:
    """Those files that may be others than those of their stamps: renamed into place, linked elsewhere, written, or so.

    Or it was only their permissions, or their number of names. Raises CheckpointError for the first file whose size or
    time of change shows that it was changed.
    """
    for path, stamp in stamps:
        now = stamp_of(path, stamp.header)
        if now != stamp:
            raise changed_meanwhile(path)
        if stamp.is_touched(now):
            yield path


def changed_meanwhile(path: Path) -> CheckpointError:
    """The refusal of a source whose file ``path`` is another one than it was."""
    return CheckpointError(
        f"{path} was changed while it was being converted.", "Convert again when nothing else writes to the checkpoint."
    )


def stamp_from(status: os.stat_result, header: str = "") -> Stamp:
    """The stamp of the file with that ``status``."""
    place = (status.st_dev, status.st_ino)
    return Stamp(status.st_size, status.st_mtime_ns, header, place, status.st_ctime_ns)
