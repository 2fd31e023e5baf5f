"""Find the unfinished outputs that no run works on any more, and remove them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.finished_by_workers import worker_directories
from internvl_bridge.storage.free_space import used_bytes
from internvl_bridge.storage.journal import JOURNAL, Journal, Record, open_journal
from internvl_bridge.storage.output_place import SUFFIX, is_plain_directory
from internvl_bridge.storage.replacing import REPLACED, has_swapped
from internvl_bridge.storage.workspace import FILES, HEADERS, Place, discard, opened_place


@dataclass(frozen=True, slots=True)
class AbandonedOutput:
    """What a run has left in ``partial`` and did not finish, or did not clean up after it had finished.

    ``record`` is what its journal says, None if it was killed before it had written anything down. ``size`` is in bytes
    and ``changed`` is when the run was last heard of, in seconds since 1970. ``is_complete``: the output has its place,
    and this is what is left of the work. ``by_workers`` are the files that several workers have finished.
    ``reason_to_keep`` is why it must not be removed: it may hold an output that
    is nowhere else, or a run may still work on it.
    """

    partial: Path
    output: Path
    record: Record | None
    size: int
    changed: float
    is_complete: bool
    reason_to_keep: str | None
    by_workers: frozenset[str] = frozenset()

    @property
    def finished(self) -> int:
        """How many files are finished, with which the same command goes on."""
        return 0 if self.record is None or self.is_complete else len({*self.record.finished, *self.by_workers})


def abandoned_outputs(directory: Path) -> list[AbandonedOutput]:
    """What runs have left in ``directory`` or, if it is such a place itself, in it; by name.

    What a run works on, what belongs to another user, and what is not of this program is left out. Raises OutputError
    if ``directory`` is not a directory.
    """
    if not directory.is_dir():
        raise OutputError(f"{directory} is not a directory.", "Give the directory in which outputs were to be made.")
    places = [directory] if _may_be_ours(directory) else sorted(filter(_may_be_ours, directory.iterdir()))
    return [found for place in places if (found := _looked_at(place)) is not None]


def remove_abandoned(found: AbandonedOutput) -> None:
    """Remove what ``found`` describes. Raises OutputError if a run works on it by now, or it cannot be removed."""
    with _held(found.output) as (place, journal):
        if journal.read() != found.record or _by_workers(place) != found.by_workers:
            raise OutputError(f"{found.partial} has changed meanwhile.", "Give the same command again.")
        discard(place)
    if os.path.lexists(found.partial):
        raise OutputError(f"{found.partial} could not be removed.", "Look at its permissions, and try again.")


def _may_be_ours(path: Path) -> bool:
    return path.name.endswith(SUFFIX) and is_plain_directory(path) and (path / JOURNAL).is_file()


def _looked_at(partial: Path) -> AbandonedOutput | None:
    output = partial.with_name(partial.name.removesuffix(SUFFIX))
    try:
        with _held(output) as (place, journal):
            record = journal.read()
            return AbandonedOutput(
                partial,
                output,
                record,
                size=used_bytes(place.around.path),
                changed=max(path.stat().st_mtime for path in place.around.path.rglob(JOURNAL)),
                is_complete=_is_complete(place, record),
                reason_to_keep=_reason_to_keep(place, journal, record),
                by_workers=_by_workers(place),
            )
    except OutputError:  # a run works on it, or it is another's
        return None


@contextmanager
def _held(output: Path) -> Iterator[tuple[Place, Journal]]:
    with opened_place(output) as place, open_journal(place.around) as journal:
        yield place, journal


def _by_workers(place: Place) -> frozenset[str]:
    return frozenset(name for worker in worker_directories(place.around) for name in worker.finished)


def _is_complete(place: Place, record: Record | None) -> bool:
    if record is None or place.above.found(place.name) is None:
        return False
    if record.consumed and not record.is_publishing:
        return False
    return not place.around.has_directory(FILES) or has_swapped(place.around.path, record)


def _reason_to_keep(place: Place, journal: Journal, record: Record | None) -> str | None:
    replaced = place.around.path / REPLACED
    if place.around.has_directory(HEADERS) and (record is None or not record.consumed):
        return "its journal is damaged, and it may have the only copy of what --consume has deleted from the source"
    if record is not None and record.consumed and not _is_complete(place, record):
        return f"it has the only copy of what --consume has deleted: {len(record.consumed)} file(s) of the source"
    if place.around.has_directory(REPLACED) and place.around.has_directory(FILES):
        return f"{replaced} is what {place.output} was before an interrupted --overwrite"
    if not journal.locked:
        return "this file system has no locks, so that a run may still work on it"
    return None
