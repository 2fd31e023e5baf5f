"""Give one of several workers its place in the workspace that they share."""

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from internvl_bridge.errors import InUseError, OutputError
from internvl_bridge.storage.durability import sync_directory
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.journal import JOURNAL, Identity, Journal, check_same, open_journal
from internvl_bridge.storage.output_place import check_free, partial_path
from internvl_bridge.storage.partial_directory import make_partial, remove_empty
from internvl_bridge.storage.permissions import ANY, OWNER_DIRECTORY, Permissions
from internvl_bridge.storage.workspace import FILES, Workspace, discard, files_of, keep_only, opened_place

_PATIENCE = 10.0
"""Seconds to wait for a process that has the workspace for itself: others that begin it need moments."""
_SHORT, _LONG = 0.01, 0.05
"""Seconds between two looks."""


@contextmanager
def worker_space(
    output: Path, identity: Identity, directory: str, *, overwrite: bool = False, permissions: Permissions = ANY
) -> Iterator[Workspace]:
    """Yield a workspace of its own to a worker that takes part in the conversion ``identity`` into ``output``.

    It is the ``directory`` within the workspace that all workers share. What its journal calls finished is there for
    whoever publishes the output, and for the same worker if it starts again. Nobody can publish, or start over,
    meanwhile. Raises InUseError if such a run, or the same worker, is at work. Raises OutputError if the workspace
    belongs to another conversion, or ``output`` is there by now, unless ``overwrite`` will replace it.
    """
    with _shared(output, identity, overwrite=overwrite) as around:
        around.make(directory, OWNER_DIRECTORY)
        with held(around.path / directory, around) as own, open_journal(own) as journal:
            if not (own.has_directory(FILES) and journal.resumes(identity)):
                own.clear(but=[JOURNAL])
                journal.begin(identity)
            try:
                with files_of(own, permissions) as files:
                    workspace = Workspace(own, files, journal, permissions)
                    keep_only(workspace, journal.finished)
                    yield workspace
                    for synced in (files, own, around):
                        sync_directory(synced.path)
            except BaseException as error:
                _leave(around, own, journal, error)
                raise


@contextmanager
def _shared(output: Path, identity: Identity, *, overwrite: bool) -> Iterator[HeldDirectory]:
    """Share the workspace for ``output``; if nothing is made in it, it is removed."""
    made: list[Path] = []
    try:
        with ExitStack() as stack:
            around = _joined(stack, output, identity, made)
            check_free(output, overwrite=overwrite)  # another run may have put its output there meanwhile
            yield around
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
                    check_same(journal.path, identity, found, is_shared=True)
                    place.around.make(FILES)
                    stack.enter_context(trial.pop_all())
                    return place.around
            except (InUseError, FileNotFoundError):  # another one begins it just now, or has removed it
                if time.monotonic() > give_up:
                    raise
                time.sleep(random.uniform(_SHORT, _LONG))  # noqa: S311 (to keep workers apart)
                continue
        with suppress(InUseError, FileNotFoundError):
            _begin(output, identity)


def _begin(output: Path, identity: Identity) -> None:
    """Write down which conversion it is, if nobody has yet."""
    with opened_place(output) as place, open_journal(place.around) as journal:
        if journal.read() is None:
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
    with suppress(OutputError, OSError), opened_place(output) as place:
        if place.around.found(JOURNAL) is None:
            return
        with open_journal(place.around) as journal:
            names, found = {*place.around.names()}, journal.read()
            if journal.locked and names <= {JOURNAL, FILES} and not (found and found.finished):
                discard(place)
