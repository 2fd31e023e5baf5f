"""Know which files the workers of a shared conversion have finished, and take them over."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.journal import JOURNAL, Identity, Record, check_same, journal_in
from internvl_bridge.storage.workspace import FILES, Workspace

_WORKER = re.compile("worker-[1-9][0-9]{0,5}-of-[1-9][0-9]{0,5}")


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
    names = sorted(name for name in around.names() if _WORKER.fullmatch(name) and around.has_directory(name))
    return [found for name in names if (found := _read(around, name)) is not None]


def finished_by_workers(around: HeldDirectory, identity: Identity) -> Iterator[WorkerDirectory]:
    """Those of the directories in ``around`` whose workers take part in the conversion ``identity``."""
    for found in worker_directories(around):
        try:
            check_same(around.path / found.name / JOURNAL, identity, found.record)
        except OutputError:
            continue
        if identity.is_of_machine(found.record.identity):
            yield found


def take_over(workspace: Workspace, identity: Identity) -> None:
    """Let ``workspace``, which nobody shares now, have the files that workers of ``identity`` have finished in it.

    It is written down first. So a run that is stopped in between goes on where it was.
    """
    journal, around = workspace.journal, workspace.around
    for worker in finished_by_workers(around, identity):
        there = workspace.directory.files()
        for file, checksum in worker.finished.items():
            if file not in journal.finished:
                journal.record(file, checksum=checksum)
            elif file in there:  # two workers have made it
                continue
            with held(around.path / worker.name, around) as own, held(own.path / FILES, own) as files:
                files.move(file, workspace.directory, file)


def _read(around: HeldDirectory, name: str) -> WorkerDirectory | None:
    """The directory ``name`` in ``around``; None if no worker has written anything down in it."""
    with held(around.path / name, around) as own:
        try:
            record = journal_in(own)
        except (OutputError, FileNotFoundError):
            return None
        if record is None or not own.has_directory(FILES):
            return None
        with held(own.path / FILES, own) as files:
            there = files.files()
    number, of = map(int, name.split("-")[1::2])
    finished = {file: record.checksums.get(file) for file in record.finished if file in there}
    return WorkerDirectory(name, number, of, record, finished)
