"""Give one of several workers its place in the workspace that they share."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from internvl_bridge.errors import InUseError
from internvl_bridge.storage.durability import sync_directory
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.journal import JOURNAL, Identity, Journal, check_same, open_journal
from internvl_bridge.storage.output_place import partial_path
from internvl_bridge.storage.partial_directory import make_partial, remove_empty
from internvl_bridge.storage.permissions import ANY, OWNER_DIRECTORY, Permissions
from internvl_bridge.storage.workspace import FILES, Workspace, discard, files_of, keep_only, opened_place

_PATIENCE = 10.0
"""Seconds in which the others that start at the same time have begun, and a run that works there has not ended."""
_SHORT, _LONG = 0.01, 0.05
"""Seconds between two looks."""


@contextmanager
def worker_space(
    output: Path, identity: Identity, directory: str, *, permissions: Permissions = ANY
) -> Iterator[Workspace]:
    """Yield a workspace of its own to a worker that takes part in the conversion ``identity`` into ``output``.

    It is the ``directory`` within the workspace that all workers share. What its journal calls finished is there for
    whoever publishes the output, and for the same worker if it starts again. Nobody can publish, or start over,
    meanwhile. Raises InUseError if such a run, or the same worker, is at work. Raises OutputError if the workspace
    belongs to another conversion.
    """
    made: list[Path] = []
    try:
        with ExitStack() as stack:
            around = _joined(stack, output, identity, made)
            around.make(directory, OWNER_DIRECTORY)
            own = stack.enter_context(held(around.path / directory, around))
            journal = stack.enter_context(open_journal(own))
            if not (own.has_directory(FILES) and journal.resumes(identity)):
                own.clear(but=[JOURNAL])
                journal.begin(identity)
            files = stack.enter_context(files_of(own, permissions))
            workspace = Workspace(own, files, journal, permissions)
            keep_only(workspace, journal.finished)
            try:
                yield workspace
                for synced in (files, own, around):
                    sync_directory(synced.path)
            except BaseException as error:
                _leave(around, own, journal, error)
                raise
    except BaseException:
        _remove_unused(output)
        remove_empty(made)
        raise


def _joined(stack: ExitStack, output: Path, identity: Identity, made: list[Path]) -> HeldDirectory:
    """The workspace for ``output``, shared until the ``stack`` ends; the first worker begins it."""
    give_up = time.monotonic() + _PATIENCE
    while True:
        with ExitStack() as trial:
            try:
                made[:0] = make_partial(partial_path(output))
                place = trial.enter_context(opened_place(output))
                journal = trial.enter_context(open_journal(place.around, shared=True))
                found = journal.read()
                if found is not None:
                    check_same(journal.path, identity, found)
                    place.around.make(FILES)
                    stack.enter_context(trial.pop_all())
                    return place.around
            except (InUseError, FileNotFoundError):  # another one begins it just now, or has removed it
                if time.monotonic() > give_up:
                    raise
        with suppress(InUseError, FileNotFoundError):
            _begin(output, identity)
        time.sleep(random.uniform(_SHORT, _LONG))  # noqa: S311 (to keep workers apart)


def _begin(output: Path, identity: Identity) -> None:
    """Write down which conversion it is, if nobody has yet."""
    with opened_place(output) as place, open_journal(place.around) as journal:
        if journal.read() is None:
            place.around.clear(but=[JOURNAL])
            journal.begin(identity)


def _leave(around: HeldDirectory, own: HeldDirectory, journal: Journal, error: BaseException) -> None:
    if journal.finished:
        error.add_note(f"{len(journal.finished)} finished file(s) are kept in {own.path}: the same command goes on.")
        return
    with suppress(OSError):
        own.clear(but=[])
        around.remove_empty(own.path.name)


def _remove_unused(output: Path) -> None:
    """Remove the workspace for ``output`` if nobody shares it, and nothing is in it."""
    with (
        suppress(InUseError, OSError),
        opened_place(output) as place,
        open_journal(place.around) as journal,
    ):
        if {*place.around.names()} <= {JOURNAL, FILES} and not (journal.read() or journal).finished:
            discard(place)
