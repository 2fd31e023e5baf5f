"""The place where an output is collected, while one run works in it."""

import os
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.held_directory import HeldDirectory, held
from internvl_bridge.storage.journal import JOURNAL, Journal
from internvl_bridge.storage.local_files import LocalFiles
from internvl_bridge.storage.output_place import partial_path
from internvl_bridge.storage.ownership import check_owner
from internvl_bridge.storage.partial_directory import check_ours
from internvl_bridge.storage.permissions import OWNER_DIRECTORY, Permissions, prepare_directory

FILES = "files"
HEADERS = "headers"
"""Where the headers of deleted files of a source are."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an output appears: its name in the directory ``above``. ``around`` is where it is collected."""

    name: str
    above: HeldDirectory
    around: HeldDirectory

    @property
    def output(self) -> Path:
        return self.above.path / self.name


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the files of an output are collected, and which of them are finished.

    ``around`` is the directory of all that belongs to the run, and ``directory`` that of the files in it. Both are held
    open: what has their paths meanwhile is not touched.
    """

    around: HeldDirectory
    directory: HeldDirectory
    journal: Journal
    permissions: Permissions

    @property
    def files(self) -> Path:
        """The path of the files, for messages."""
        return self.directory.path

    @property
    def target(self) -> LocalFiles:
        """What the files are written with."""
        group = os.fstat(self.directory.handle).st_gid
        return LocalFiles(directory=self.directory, mode=self.permissions.of_files(group))

    def is_ours(self) -> bool:
        """Whether nobody has moved, removed or taken over the workspace."""
        return self.around.is_at_its_path() and self.directory.is_at_its_path() and self.journal.is_ours()

    def check(self) -> None:
        """Raise OutputError unless it is this run's."""
        if not self.is_ours():
            raise taken_over(self.around.path)


def taken_over(partial: Path) -> OutputError:
    """The refusal to go on where ``partial`` is another's now."""
    return OutputError(
        f"{partial} is not what this run works in any more: it was moved, removed, or taken over by another run.",
        "Nothing was published. Give the command again when no other run has this output.",
    )


def keep_only(workspace: Workspace, names: Collection[str]) -> None:
    """Remove all but those finished files of ``workspace`` that ``names`` names."""
    workspace.check()
    finished = workspace.journal.finished
    there = workspace.directory.files_and_links()
    finished[:] = [name for name in dict.fromkeys(finished) if name in names and name in there]
    workspace.directory.clear(but=finished)


@contextmanager
def opened_place(output: Path) -> Iterator[Place]:
    """Hold what is above ``output``, and the directory in which it is collected, which is there.

    Raises OutputError if that is not of this program, or belongs to another user.
    """
    check_ours(partial_path(output))
    with ExitStack() as stack:
        above = stack.enter_context(held(output.parent, to_pass=True))
        around = stack.enter_context(held(partial_path(output), above))
        check_owner(around, (JOURNAL, FILES))
        with suppress(OSError):  # some file systems have no modes of their own
            os.fchmod(around.handle, OWNER_DIRECTORY)
        yield Place(output.name, above, around)


@contextmanager
def files_of(
    around: HeldDirectory, permissions: Permissions, replaced: os.stat_result | None = None
) -> Iterator[HeldDirectory]:
    """Hold the directory of the files, which has the permissions that the output shall have.

    They are those of what is ``replaced``, if anything is.
    """
    around.make(FILES)
    with held(around.path / FILES, around) as files:
        prepare_directory(files, permissions, replaced)
        yield files


def discard(place: Place) -> None:
    """Remove all that belongs to the run, the journal last, by which it is known."""
    with suppress(OSError):
        place.around.clear(but=[JOURNAL])
        place.around.remove(JOURNAL)
        place.above.remove_empty(place.around.path.name)
