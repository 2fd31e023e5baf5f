"""Know which files the workers of a shared conversion have finished, and take them over."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.journal import Identity, Record, foreign, journal_in
from internvl_bridge.storage.workspace import FILES, Workspace

_WORKER = re.compile("worker-([1-9][0-9]{0,5})-of-([1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True)
class WorkerDirectory:
    """The directory ``name`` of worker ``number``, ``of`` so many, and what its journal says.

    ``finished`` are the names of the finished files that lie in it, with their checksums if known.
    """

    name: str
    number: int
    of: int
    record: Record
    finished: Mapping[str, str | None]


def worker_directory(number: int, of: int) -> str:
    """The name of the directory of worker ``number``, ``of`` so many."""
    return f"worker-{number}-of-{of}"


def worker_directories(around: HeldDirectory) -> list[WorkerDirectory]:
    """The directories of workers in ``around``, the workspace that they share."""
    found = []
    for name in sorted(around.names()):
        worker = _WORKER.fullmatch(name)
        if worker is None or not around.has_directory(name):
            continue
        with suppress(OutputError, OSError):  # nothing was written down in it, or it is being removed
            found.append(_read(around, name, int(worker[1]), int(worker[2])))
    return found


def finished_by_workers(around: HeldDirectory, identity: Identity) -> Iterator[WorkerDirectory]:
    """Those of the directories in ``around`` whose workers take part in the conversion ``identity``."""
    for found in worker_directories(around):
        then = found.record.identity
        if identity.difference(then) is None and identity.is_of_machine(then):
            yield found


def take_over(workspace: Workspace, identity: Identity) -> None:
    """Let ``workspace``, which nobody shares now, have the files that workers of ``identity`` have finished in it.

    It is written down first. So a run that is stopped in between goes on where it was. What is not finished is removed.
    """
    journal, around = workspace.journal, workspace.around
    for worker in finished_by_workers(around, identity):
        with held(around.path / worker.name, around) as own, held(own.path / FILES, own) as files:
            there = workspace.directory.files()
            for file, checksum in worker.finished.items():
                if file not in journal.finished:
                    journal.record(file, checksum=checksum)
                elif file in there:  # two workers have made it
                    continue
                files.move(file, workspace.directory, file)
            files.clear(but=[])


def _read(around: HeldDirectory, name: str, number: int, of: int) -> WorkerDirectory:
    """The directory ``name`` in ``around``. Raises OutputError or FileNotFoundError if no worker has begun in it."""
    with held(around.path / name, around) as own, held(own.path / FILES, own) as files:
        record, there = journal_in(own), files.files()
    if record is None:
        raise foreign(own.path)
    finished = {file: record.checksums.get(file) for file in record.finished if file in there}
    return WorkerDirectory(name, number, of, record, finished)
