"""Make an output directory appear complete or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import DifferenceError, OutputError, named
from internvl_bridge.storage.journal import Identity, Journal, check_same, is_at, open_journal, read_journal

_JOURNAL, _FILES, _REPLACED = "journal", "files", "replaced"
_NO_SYNC = {errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP}
_MARKS = ("config.json", "internvl_bridge.json")
"""A directory that is a checkpoint, or an output of this program, has one of these."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The place where an output is collected: the directory of its files, and which of them are finished.

    ``handles`` are the descriptors of the directory around both, and of the files' own. They show whether what has
    these names is still what this run has made.
    """

    files: Path
    journal: Journal
    handles: tuple[int, int]

    def is_ours(self) -> bool:
        """Whether nobody has moved, removed or taken over the workspace."""
        places = zip((self.files.parent, self.files), self.handles, strict=True)
        return all(is_at(path, handle) for path, handle in places) and self.journal.is_ours()

    def check(self) -> None:
        """Raise OutputError unless it is this run's."""
        if not self.is_ours():
            raise _taken_over(self.files.parent)


def _taken_over(partial: Path) -> OutputError:
    return OutputError(
        f"{partial} is not what this run works in any more: it was moved, removed, or taken over by another run.",
        "Nothing was published. Give the command again when no other run has this output.",
    )


def check_output(source: Path, output: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if ``output`` must not be made: it exists, or lies in or around ``source``.

    With ``overwrite`` it may exist, if it is a checkpoint and nothing but that.
    """
    check_apart(output, source, "source")
    _check_free(output, overwrite=overwrite)


def check_apart(output: Path, read: Path, what: str) -> None:
    """Raise OutputError if ``output`` is, holds or lies in the directory ``read``, the ``what`` of a conversion.

    A reference would be compared with itself after it was replaced; any of them would change while it is read.
    """
    if not output.name:
        raise OutputError(f"{output} is not a name for a directory.", "Give an output directory of its own.")
    around = Path(os.path.realpath(read))
    for place in (output, partial_path(output)):
        real = Path(os.path.realpath(place))
        if real == around:
            raise OutputError(
                f"{place} and {read} are the same directory, and a conversion does not change its {what}.",
                f"Give another output, for instance {around}-converted.",
            )
        if around in real.parents or real in around.parents:
            inner, outer = (place, read) if around in real.parents else (read, place)
            raise OutputError(
                f"{inner} lies inside {outer}.", f"Give an output beside the {what}, for instance {around}-converted."
            )


def partial_path(output: Path) -> Path:
    """Where the files of ``output`` are collected until they are complete."""
    return output.with_name(output.name + ".partial")


def finished_files(output: Path, identity: Identity) -> list[str]:
    """The files of ``output`` that an earlier run of the conversion ``identity`` has finished.

    Raises OutputError if another conversion, or somebody else, has left something there.
    """
    partial = partial_path(output)
    if not os.path.lexists(partial) or _is_empty_directory(partial):
        return []
    _check_ours(partial)
    found = read_journal(partial / _JOURNAL)
    if found is None or not _is_plain_directory(partial / _FILES):
        return []
    check_same(partial / _JOURNAL, identity, found)
    there = _plain_files(partial / _FILES)
    return [name for name in found.finished if name in there]


@contextmanager
def publishing(
    output: Path, identity: Identity, *, overwrite: bool = False, restart: bool = False
) -> Iterator[Workspace]:
    """Yield a workspace; at the end its files become ``output`` by one rename.

    If anything fails, what the journal calls finished is kept for the next run with the same ``identity``. The error
    gets a note about it. Where nothing is finished, nothing is left. ``restart`` throws away what an earlier run has
    left. ``overwrite`` replaces an existing output. Raises OutputError if the workspace cannot be made, is in use, or
    belongs to another conversion.
    """
    partial = partial_path(output)
    made = _make(partial)
    try:
        with _opened(partial) as outer, open_journal(partial / _JOURNAL) as journal:
            found = read_journal(partial / _JOURNAL)  # refuses what is not a journal, before anything is changed
            _restore(partial, output)
            try:
                _check_free(output, overwrite=overwrite)
            except OutputError:
                _remove_unused(partial)  # another run has just put its output there, and removed its own journal
                raise
            files = partial / _FILES
            is_unfinished = found is not None and _is_plain_directory(files)
            goes_on = not restart and is_unfinished and journal.resumes(identity)
            try:
                if not goes_on:
                    _clear(partial, but=[_JOURNAL])
                    journal.begin(identity)
                files.mkdir(exist_ok=True)
                with _opened(files) as inner:
                    workspace = Workspace(files, journal, (outer, inner))
                    keep_only(workspace, journal.finished)
                    yield workspace
                    _sync_directory(files)
                    workspace.check()
                    _publish(partial, output, [path.parent for path in made], overwrite=overwrite)
            except BaseException as error:
                if not _is_lost(partial, outer, journal):
                    _leave(partial, output, journal, error)
                elif isinstance(error, OSError | DifferenceError):
                    raise _taken_over(partial) from error
                raise
            _remove(partial)
    except BaseException:
        _remove_empty([partial, *made])
        raise


def keep_only(workspace: Workspace, names: Collection[str]) -> None:
    """Remove all but those finished files of ``workspace`` that ``names`` names."""
    workspace.check()
    finished = workspace.journal.finished
    there = _plain_files(workspace.files)
    finished[:] = [name for name in dict.fromkeys(finished) if name in names and name in there]
    _clear(workspace.files, but=finished)


def _check_free(output: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(output) or _is_empty_directory(output):
        return
    reason = _refusal(output)
    if not overwrite:
        raise OutputError(
            f"{output} exists and is not an empty directory.",
            "Choose another output" + (", or replace it with --overwrite (overwrite=True)." if reason is None else "."),
        )
    if reason is not None:
        raise OutputError(reason, "Only plain checkpoints are overwritten: move it away, or choose another output.")


def _refusal(output: Path) -> str | None:
    """Why ``output``, which exists, is not overwritten."""
    if output.is_symlink() or not output.is_dir() or not any((output / mark).is_file() for mark in _MARKS):
        return f"{output} is not the directory of a checkpoint: it has no {' and no '.join(_MARKS)}, or is a link."
    if inner := sorted(path.name for path in output.iterdir() if path.is_dir()):
        return f"{output} holds more than a checkpoint: the directory {inner[0]}."
    return None


def _make(partial: Path) -> list[Path]:
    """Make the directory ``partial``; those above it that had to be made, too, the innermost first."""
    made = [path for path in partial.parents if not os.path.lexists(path)]
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            partial.mkdir()
        _check_ours(partial)
        _check_owner(partial)
    except OSError as error:
        _remove_empty(made)
        where = "" if error.filename in {None, str(partial)} else f"{error.filename}: "
        remedy = "Make room, or choose" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "Choose"
        raise OutputError(
            f"{partial} cannot be created: {where}{error.strerror}.", f"{remedy} another output directory."
        ) from error
    return made


def _check_owner(partial: Path) -> None:
    """Raise OutputError if ``partial``, which is there, or what is in it belongs to another user.

    Its owner could put a link in the place of what this program removes and writes.
    """
    for path in (partial, partial / _JOURNAL, partial / _FILES):
        owner = path.lstat().st_uid if os.path.lexists(path) else os.geteuid()
        if owner != os.geteuid() and owner != _owner_of_new(partial.parent):
            raise OutputError(
                f"{path} belongs to another user (number {owner}), who could make this program write and remove files "
                f"elsewhere.",
                "Choose an output in a directory where only you can write, or remove it.",
            )


def _owner_of_new(directory: Path) -> int:
    """Whom a new directory in ``directory`` belongs to: servers and mounts may map users to others."""
    try:
        new = Path(tempfile.mkdtemp(prefix="owner-", dir=directory))
    except OSError:
        return os.geteuid()
    try:
        return new.lstat().st_uid
    finally:
        with suppress(OSError):
            new.rmdir()


def _check_ours(partial: Path) -> None:
    if partial.is_symlink() or not (_is_empty_directory(partial) or (partial / _JOURNAL).is_file()):
        raise OutputError(
            f"{partial}, where the output would be collected, exists and is not an unfinished output of this program.",
            "Move it away, or choose another output.",
        )


def _restore(partial: Path, output: Path) -> None:
    """Undo half a replacement: the program was killed after the old output had gone and before the new one came."""
    replaced = partial / _REPLACED
    if not replaced.exists() or not os.path.lexists(partial / _FILES):
        return  # without files the new one has come, and what it replaced may be half removed
    if not os.path.lexists(output):
        replaced.rename(output)
    else:
        raise OutputError(
            f"{replaced} is what {output} was before an interrupted --overwrite, but {output} is there again.",
            "Move one of them away.",
        )


def _publish(partial: Path, output: Path, above: Sequence[Path], *, overwrite: bool) -> None:
    """Give the files their place, and make that durable, in the directories ``above``, too; or change nothing."""
    files, replaced = partial / _FILES, partial / _REPLACED
    replaces = overwrite and os.path.lexists(output)
    if replaces:
        _check_free(output, overwrite=True)  # it may have become another one since
    placed = False
    try:
        if replaces:
            output.rename(replaced)
        _put(files, output)
        placed = True
        for directory in (partial, output.parent, *above):
            _sync_directory(directory)
    except BaseException:
        with suppress(OSError):  # then the next run finds a new output that is complete, and removes the old one
            if placed and not os.path.lexists(files):
                output.rename(files)
        with suppress(OSError):  # then the next run does that
            if replaces and not os.path.lexists(output):
                replaced.rename(output)
        raise


def _put(files: Path, output: Path) -> None:
    try:
        files.rename(output)
    except OSError as error:
        error.filename = str(output)  # that is what is in the way
        raise


def _is_lost(partial: Path, handle: int, journal: Journal) -> bool:
    """Whether what is at ``partial`` is another run's, or nothing; False where nobody can look."""
    try:
        return not (is_at(partial, handle) and journal.is_ours())
    except OSError:
        return False


def _leave(partial: Path, output: Path, journal: Journal, error: BaseException) -> None:
    if os.path.lexists(partial / _REPLACED):
        if not os.path.lexists(output):
            error.add_note(f"What was to be overwritten is in {partial / _REPLACED}: the same command puts it back.")
        return
    if not journal.finished or not _may_hold_files(partial / _FILES):
        _remove(partial)
        if os.path.lexists(partial):
            error.add_note(f"Unfinished files that could not be removed are kept in {partial}.")
        return
    error.add_note(
        f"{len(journal.finished)} finished file(s) are kept in {partial}: the same command goes on from there, "
        f"--restart starts over, and removing that directory gives it up."
    )


def _may_hold_files(directory: Path) -> bool:
    """Whether ``directory`` is one; True where nobody can look."""
    try:
        return directory.is_dir()
    except OSError:
        return True


def _remove(partial: Path) -> None:
    """Remove ``partial``, its journal last, by which it is known."""
    with suppress(OSError):
        _clear(partial, but=[_JOURNAL])
        (partial / _JOURNAL).unlink()
        partial.rmdir()


def _remove_unused(partial: Path) -> None:
    """Remove ``partial`` if it holds an empty journal and nothing else."""
    with suppress(OSError):
        if [path.name for path in partial.iterdir()] == [_JOURNAL] and not (partial / _JOURNAL).stat().st_size:
            _remove(partial)


def _remove_empty(directories: Sequence[Path]) -> None:
    """Remove those of ``directories``, the innermost first, that hold nothing."""
    for path in directories:
        with suppress(OSError):  # not empty, or gone already
            path.rmdir()


def _clear(directory: Path, but: Collection[str]) -> None:
    """Remove everything in ``directory`` but the names in ``but``."""
    for path in directory.iterdir():
        if path.name in but:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _plain_files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir() if path.is_file() and not path.is_symlink()}


def _is_empty_directory(path: Path) -> bool:
    return _is_plain_directory(path) and not any(path.iterdir())


def _is_plain_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    """A descriptor of ``directory`` itself, and not of what a link there may lead to."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _sync_directory(path: Path) -> None:
    """Make the names in ``path`` durable, as far as its file system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # what is above an output need not be readable
        return
    try:
        with named(path):
            os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)
