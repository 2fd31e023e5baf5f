"""Make an output directory appear complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from internvl_bridge.errors import DifferenceError, OutputError
from internvl_bridge.storage.durability import sync_directory
from internvl_bridge.storage.finished_by_workers import finished_by_workers, take_over, worker_directories
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.journal import JOURNAL, Identity, Journal, Record, check_same, open_journal, read_journal
from internvl_bridge.storage.output_place import check_free, is_empty_directory, is_plain_directory, partial_path
from internvl_bridge.storage.partial_directory import check_ours, make_partial, remove_empty
from internvl_bridge.storage.permissions import ANY, Permissions
from internvl_bridge.storage.rename_trial import try_renames
from internvl_bridge.storage.replacing import REPLACED, has_swapped, put_in_place, recover
from internvl_bridge.storage.workspace import (
    FILES,
    HEADERS,
    Place,
    Workspace,
    discard,
    files_of,
    keep_only,
    opened_place,
    taken_over,
)


def finished_files(output: Path, identity: Identity) -> list[str]:
    """The files of ``output`` that earlier runs of the conversion ``identity`` have finished, and its workers.

    Raises OutputError if another conversion, or somebody else, has left something there.
    """
    partial = partial_path(output)
    if not os.path.lexists(partial) or is_empty_directory(partial):
        return []
    check_ours(partial)
    found = read_journal(partial / JOURNAL)
    if found is None or not is_plain_directory(partial / FILES):
        return []
    if has_swapped(partial, found):
        return []
    with held(partial) as around:
        check_same(partial / JOURNAL, identity, found, is_shared=bool(worker_directories(around)))
    if not identity.is_of_machine(found.identity):
        return []
    with held(partial) as around, held(partial / FILES, around) as files:
        there = files.files_and_links()
        by_workers = [name for worker in finished_by_workers(around, identity) for name in worker.finished]
    return [*dict.fromkeys([*(name for name in found.finished if name in there), *by_workers])]


@contextmanager
def publishing(
    output: Path, identity: Identity, *, overwrite: bool = False, restart: bool = False, permissions: Permissions = ANY
) -> Iterator[Workspace]:
    """Yield a workspace; at the end its files become ``output`` by one rename.

    Before anything is written, that rename is tried. If anything fails, what the journal calls finished is kept for the
    next run with the same ``identity``. The error gets a note about it. Where nothing is finished, nothing is left.
    ``restart`` throws away what an earlier run has left. ``overwrite`` replaces an existing output. ``permissions`` are
    what new files get at most. An existing directory keeps its own. Raises OutputError if the workspace cannot be made,
    is in use, or belongs to another conversion.
    """
    partial = partial_path(output)
    made = make_partial(partial)
    try:
        with opened_place(output) as place, open_journal(place.around) as journal:
            found = journal.read()  # refuses what is not a journal, before anything is changed
            recover(place, found)
            try:
                check_free(output, overwrite=overwrite)
            except OutputError:
                _remove_unused(place)  # another run has just put its output there, and removed its own journal
                raise
            goes_on = not restart and place.around.has_directory(FILES) and journal.resumes(identity)
            if not goes_on:
                _check_nothing_is_lost(place.around, found)
            try:
                try_renames(place)
                if not goes_on:
                    place.around.clear(but=[JOURNAL])
                    journal.begin(identity)
                with files_of(place.around, permissions, place.above.found(place.name)) as files:
                    workspace = Workspace(place.around, files, journal, permissions)
                    take_over(workspace, identity)
                    keep_only(workspace, journal.finished)
                    yield workspace
                    sync_directory(files.path)
                    workspace.check()
                    if journal.consumed:
                        journal.publish()
                    put_in_place(place, journal, made, overwrite=overwrite)
            except BaseException as error:
                if not _is_lost(place.around, journal):
                    _leave(place, journal, error)
                elif isinstance(error, OSError | DifferenceError):
                    raise taken_over(partial) from error
                raise
            discard(place)
    except BaseException:
        remove_empty(made)
        raise


def _is_lost(around: HeldDirectory, journal: Journal) -> bool:
    """Whether what is there now is another run's, or nothing; False where nobody can look."""
    try:
        return not (around.is_at_its_path() and journal.is_ours())
    except OSError:
        return False


def _leave(place: Place, journal: Journal, error: BaseException) -> None:
    partial = place.around.path
    if os.path.lexists(partial / REPLACED):
        if not os.path.lexists(place.output):
            error.add_note(f"What was to be overwritten is in {partial / REPLACED}: the same command puts it back.")
        return
    if journal.consumed:
        error.add_note(
            f"{len(journal.finished)} finished file(s) are kept in {partial}: the same command goes on from there. Do "
            f"not remove that directory: for {len(journal.consumed)} file(s) that were deleted from the source, it has "
            f"the only copy of their tensors."
        )
        return
    if not journal.finished or not _may_hold_files(partial / FILES):
        discard(place)
        if os.path.lexists(partial):
            error.add_note(f"Unfinished files that could not be removed are kept in {partial}.")
        return
    error.add_note(
        f"{len(journal.finished)} finished file(s) are kept in {partial}: the same command goes on from there, "
        f"--restart starts over, and removing that directory gives it up."
    )


def _check_nothing_is_lost(around: HeldDirectory, found: Record | None) -> None:
    """Raise OutputError if a run that begins anew would remove tensors that are nowhere else.

    They are not in it any more if it was killed after its files had got their place.
    """
    if found is None or not found.consumed:
        if around.has_directory(HEADERS):
            raise OutputError(
                f"{around.path} is of a run with --consume, and its journal is damaged. It may have the only copy of "
                f"what was deleted from the source.",
                "Keep it, and look at what is in it.",
            )
        return
    if around.has_directory(FILES) or not found.is_publishing:
        raise OutputError(
            f"{around.path} holds the only copy of what --consume has deleted from the source "
            f"({len(found.consumed)} file(s)). So nothing starts over there.",
            "Give the command that began it, without --restart.",
        )


def _may_hold_files(directory: Path) -> bool:
    """Whether ``directory`` is one; True where nobody can look."""
    try:
        return directory.is_dir()
    except OSError:
        return True


def _remove_unused(place: Place) -> None:
    """Remove what holds an empty journal and nothing else."""
    with suppress(OSError):
        if place.around.names() == [JOURNAL] and not place.around.status(JOURNAL).st_size:
            discard(place)
