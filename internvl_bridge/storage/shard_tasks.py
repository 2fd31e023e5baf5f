"""Carry out shard jobs in another process, perhaps on another machine, that sees the same files under the same paths.

Whatever becomes of that process, it harms nothing: it writes under a name of its own, in a directory that only the run
knows that asked for it. That run checks what it is told, gives the file its place, and asks another one to read it.
"""

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from internvl_bridge._version import __version__
from internvl_bridge.errors import OutputError
from internvl_bridge.storage.checksums import FileChecksums
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.local_files import LocalFiles
from internvl_bridge.storage.shard_jobs import ShardJob, check, check_by_checksum, write_and_check
from internvl_bridge.storage.stamps import Stamp, check_unchanged
from internvl_bridge.work.progress import Advance

_LOOK = 1.0
"""Seconds between two looks whether somebody still waits for what is done."""


@dataclass(frozen=True, slots=True)
class ShardTask:
    """A ``job``, for whoever carries it out elsewhere. All paths are absolute.

    Files are written into the directory ``attempts``, with the permissions ``mode``. ``sources`` are the files that are
    read, with what they were. ``checksum`` is that of the whole file once it is known. ``version`` is the program's.
    """

    job: ShardJob
    attempts: Path
    mode: int
    sources: tuple[tuple[Path, Stamp], ...]
    checksum: str | None = None
    version: str = __version__

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.job.path.name


@dataclass(frozen=True, slots=True)
class Attempt:
    """A file that was written: its ``name`` in the directory of attempts, and bytes that it shares with the source.

    ``checksums`` are those of what was read; None if it shares any.
    """

    name: str
    cloned: int
    checksums: FileChecksums | None


def write_attempt(task: ShardTask) -> Attempt:
    """Write the file of ``task``, and make it durable.

    Raises OutputError if this machine does not see the same files, or has another version of this program. Raises
    CheckpointError if a source is not what it was, and OSError if a disk refuses.
    """
    name = f"{task.name}.{secrets.token_hex(8)}"
    with _seen(task.attempts) as attempts:
        _check_version(task)
        _check_sources(task)
        target = LocalFiles(directory=attempts, mode=task.mode)
        job = replace(task.job, path=attempts.path / name, verify=False)
        written = write_and_check(job, _watching(attempts), target=target)
    return Attempt(name, written.cloned, written.checksums)


def read_again(task: ShardTask) -> FileChecksums:
    """Read the file of ``task``, which has its place by now, and compare it with its checksum.

    If that is not known, it is compared with the source. Raises DifferenceError if they differ, and as
    :func:`write_attempt`.
    """
    with _seen(task.attempts) as attempts, _seen(task.job.path.parent) as directory:
        _check_version(task)
        target, advance = LocalFiles(directory=directory), _watching(attempts)
        if task.checksum is not None:
            return check_by_checksum(task.job, task.checksum, advance, target)
        _check_sources(task)
        return check(task.job, advance, target=target)


@contextmanager
def _seen(directory: Path) -> Iterator[HeldDirectory]:
    """The directory ``directory`` of the workspace, if this machine sees it."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(held(directory))
        except (FileNotFoundError, PermissionError) as error:
            raise _unseen(error) from error
        yield found


def _check_version(task: ShardTask) -> None:
    if task.version != __version__:
        raise OutputError(
            f"{socket.gethostname()} has internvl-bridge {__version__}, and this is {task.version}.",
            "Install the same version on all machines.",
        )


def _check_sources(task: ShardTask) -> None:
    try:
        check_unchanged(task.sources)
    except (FileNotFoundError, PermissionError) as error:
        raise _unseen(error) from error


def _unseen(error: OSError) -> OutputError:
    return OutputError(
        f"{socket.gethostname()} cannot open {error.filename}: {error.strerror}.",
        "SOURCE and OUTPUT must lie on file systems that all machines share, under the same paths, and for one user.",
    )


def _watching(attempts: HeldDirectory) -> Advance:
    """What ends the work soon after nobody waits for it any more: then ``attempts`` is gone."""
    looked = time.monotonic()

    def advance(_done: int) -> None:
        nonlocal looked
        now = time.monotonic()
        if now - looked < _LOOK:
            return
        looked = now
        if not attempts.is_at_its_path():
            raise OutputError(f"{attempts.path} is gone: the run that asked for this has ended.", "Start it again.")

    return advance
