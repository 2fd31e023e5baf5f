"""Work in a directory that is held open, wherever its path leads meanwhile."""

import errno
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TO_PASS = getattr(os, "O_PATH", os.O_RDONLY)
"""A directory that is only passed through need not be readable; macOS asks for that."""


@dataclass(frozen=True, slots=True)
class HeldDirectory:
    """An open directory: every name is looked up in it, and not on the way that ``path`` describes.

    ``path`` is where it was when it was opened, for messages. What is moved there since, or a link that leads there
    now, is never touched. Names are last parts of paths. Links are never followed. Errors name the whole path.
    """

    path: Path
    handle: int

    def is_at_its_path(self) -> bool:
        """Whether its path leads to it, and not through a link in its last part."""
        return is_at(self.path, self.handle)

    def status(self, name: str) -> os.stat_result:
        """What is known about ``name``; raises FileNotFoundError if there is none."""
        with _named(self.path / name):
            return os.stat(name, dir_fd=self.handle, follow_symlinks=False)

    def found(self, name: str) -> os.stat_result | None:
        """What is known about ``name``; None if there is none."""
        try:
            return self.status(name)
        except FileNotFoundError:
            return None

    def has_directory(self, name: str) -> bool:
        """Whether ``name`` is a directory, and not a link to one."""
        status = self.found(name)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def names(self) -> list[str]:
        """The names of all that is in it."""
        with _named(self.path):
            return os.listdir(self.handle)  # noqa: PTH208 (it may have moved)

    def files(self) -> set[str]:
        """The names of the plain files in it."""
        return {name for name in self.names() if (found := self.found(name)) and stat.S_ISREG(found.st_mode)}

    def files_and_links(self) -> set[str]:
        """The names of the plain files in it, and of the links, wherever they lead."""
        found = ((name, self.found(name)) for name in self.names())
        return {
            name for name, status in found if status and (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode))
        }

    def open(self, name: str, flags: int, mode: int = 0o666) -> int:
        """A descriptor of ``name``, opened as :func:`os.open` does it."""
        with _named(self.path / name):
            return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self.handle)

    def make(self, name: str, mode: int = 0o777) -> None:
        """Make the directory ``name`` if there is none."""
        with _named(self.path / name):
            try:
                os.mkdir(name, mode, dir_fd=self.handle)
            except FileExistsError:
                if not self.has_directory(name):
                    raise

    def move(self, name: str, place: "HeldDirectory", new: str) -> None:
        """Rename ``name`` to ``new`` in the directory ``place``. An error names what could not be put there."""
        with _named(place.path / new):
            os.rename(name, new, src_dir_fd=self.handle, dst_dir_fd=place.handle)

    def remove(self, name: str) -> None:
        """Remove the file, the link, or the directory ``name`` with all that is in it."""
        with _named(self.path / name):
            if self.has_directory(name):
                shutil.rmtree(name, dir_fd=self.handle)
            else:
                os.unlink(name, dir_fd=self.handle)

    def remove_empty(self, name: str) -> None:
        """Remove the directory ``name``, in which nothing is."""
        with _named(self.path / name):
            os.rmdir(name, dir_fd=self.handle)

    def clear(self, but: Collection[str]) -> None:
        """Remove everything in it but the names in ``but``."""
        for name in self.names():
            if name not in but:
                self.remove(name)


@contextmanager
def held(path: Path, within: HeldDirectory | None = None, *, to_pass: bool = False) -> Iterator[HeldDirectory]:
    """Hold the directory ``path`` open; ``within`` a held one it is looked up by its name, and is not a link.

    ``to_pass``: its names are looked up, and not listed. Raises OSError if it is not a directory, or cannot be opened.
    """
    flags = os.O_DIRECTORY | (_TO_PASS if to_pass else os.O_RDONLY)
    handle = os.open(path, flags) if within is None else within.open(path.name, flags)
    try:
        yield HeldDirectory(path, handle)
    finally:
        os.close(handle)


def is_at(path: Path, handle: int) -> bool:
    """Whether ``path`` itself, and not what it may lead to, is what is open as ``handle``."""
    try:
        ours = os.fstat(handle)
    except OSError as error:
        if error.errno == errno.ESTALE:  # another machine has removed it
            return False
        raise
    try:
        return os.path.samestat(ours, path.lstat())
    except (FileNotFoundError, NotADirectoryError):
        return False


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Give an OSError the name of ``path``: the system was told its last part alone."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
