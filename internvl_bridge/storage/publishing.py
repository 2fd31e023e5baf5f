"""Make an output directory appear complete or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.journal import Identity, Journal, open_journal, read_journal
from internvl_bridge.storage.naming import named

_JOURNAL, _FILES, _REPLACED = "journal", "files", "replaced"
_MARKS = ("config.json", "internvl_bridge.json")
"""A directory that is a checkpoint, or an output of this program, has one of these."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """The place where an output is collected: the directory of its files, and which of them are finished."""

    files: Path
    journal: Journal


def check_output(source: Path, output: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if ``output`` must not be made: it exists, or lies in or around ``source``.

    With ``overwrite`` it may exist, if it is a checkpoint and nothing but that.
    """
    if not output.name:
        raise OutputError(f"{output} is no name for a directory.", "Give an output directory of its own.")
    around = Path(os.path.realpath(source))
    for place in (output, partial_path(output)):
        inside = Path(os.path.realpath(place))
        if inside == around or inside in around.parents or around in inside.parents:
            raise OutputError(f"{place} and {source} lie within each other.", "Give an output directory of its own.")
    _check_free(output, overwrite=overwrite)


def partial_path(output: Path) -> Path:
    """Where the files of ``output`` are collected until they are complete."""
    return output.with_name(output.name + ".partial")


def finished_files(output: Path, identity: Identity) -> list[str]:
    """The files of ``output`` that an earlier run of the conversion ``identity`` has finished."""
    partial = partial_path(output)
    try:
        found = read_journal(partial / _JOURNAL)
        there = _plain_files(partial / _FILES)
    except (OSError, OutputError):
        return []
    if found is None or identity.difference(found.identity) is not None:
        return []
    return [name for name in found.finished if name in there]


@contextmanager
def publishing(
    output: Path, identity: Identity, *, overwrite: bool = False, restart: bool = False
) -> Iterator[Workspace]:
    """Yield a workspace; at the end its files become ``output`` by one rename.

    If anything fails, what the journal calls finished is kept for the next run with the same ``identity``, and the
    error gets a note that says so; where nothing is finished, nothing is left. ``restart`` throws away what an earlier
    run has left, ``overwrite`` replaces an existing output. Raises OutputError if the workspace cannot be made, is in
    use, or belongs to another conversion.
    """
    partial = partial_path(output)
    _make(partial)
    with open_journal(partial / _JOURNAL) as journal:
        found = read_journal(partial / _JOURNAL)  # refuses what is no journal, before anything is changed
        _restore(partial, output)
        _check_free(output, overwrite=overwrite)
        files = partial / _FILES
        is_unfinished = found is not None and files.is_dir() and not files.is_symlink()
        goes_on = not restart and is_unfinished and journal.resumes(identity)
        try:
            if not goes_on:
                _clear(partial, but=[_JOURNAL])
                journal.begin(identity)
            files.mkdir(exist_ok=True)
            keep_only(workspace := Workspace(files, journal), journal.finished)
            yield workspace
            _sync_directory(files)
            _publish(partial, output, overwrite=overwrite)
        except BaseException as error:
            _leave(partial, journal, error)
            raise
        _remove(partial)
    with suppress(OSError):  # the output is complete and in place: its parent need not be readable
        _sync_directory(output.parent)


def keep_only(workspace: Workspace, names: Collection[str]) -> None:
    """Remove all but those finished files of ``workspace`` that ``names`` names."""
    finished = workspace.journal.finished
    there = _plain_files(workspace.files)
    finished[:] = [name for name in dict.fromkeys(finished) if name in names and name in there]
    _clear(workspace.files, but=finished)


def _check_free(output: Path, *, overwrite: bool) -> None:
    if not os.path.lexists(output) or _is_empty_directory(output):
        return
    if not overwrite:
        raise OutputError(
            f"{output} exists and is not an empty directory.",
            "Choose another output, or replace it with --overwrite (overwrite=True).",
        )
    if output.is_symlink() or not output.is_dir() or not any((output / mark).is_file() for mark in _MARKS):
        raise OutputError(
            f"{output} is not the directory of a checkpoint: it has no {' and no '.join(_MARKS)}, or is a link.",
            "Only checkpoints are overwritten: remove it yourself, or choose another output.",
        )
    if inner := sorted(path.name for path in output.iterdir() if path.is_dir()):
        raise OutputError(
            f"{output} holds more than a checkpoint: the directory {inner[0]}.",
            "Only plain checkpoints are overwritten: move it away, or choose another output.",
        )


def _make(partial: Path) -> None:
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            partial.mkdir()
        ours = not partial.is_symlink() and (_is_empty_directory(partial) or (partial / _JOURNAL).is_file())
    except OSError as error:
        raise OutputError(
            f"{partial} cannot be created: {error.strerror}.", "Choose another output directory."
        ) from error
    if not ours:
        raise OutputError(
            f"{partial}, where the output would be collected, exists and is not an unfinished output of this program.",
            "Move it away, or choose another output.",
        )


def _restore(partial: Path, output: Path) -> None:
    """Undo half a replacement: the program was killed after the old output had gone and before the new one came."""
    replaced = partial / _REPLACED
    if replaced.exists() and not os.path.lexists(output):
        replaced.rename(output)
    elif replaced.exists() and (partial / _FILES).exists():
        raise OutputError(
            f"{replaced} is what {output} was before an interrupted --overwrite, but {output} is there again.",
            "Move one of them away.",
        )


def _publish(partial: Path, output: Path, *, overwrite: bool) -> None:
    files, replaced = partial / _FILES, partial / _REPLACED
    if not overwrite or not os.path.lexists(output):
        files.rename(output)
        return
    _check_free(output, overwrite=True)  # it may have become another one since
    try:
        output.rename(replaced)
        files.rename(output)
    except BaseException:
        if not os.path.lexists(output):
            with suppress(OSError):  # then the next run does that
                replaced.rename(output)
        raise


def _leave(partial: Path, journal: Journal, error: BaseException) -> None:
    if (partial / _REPLACED).exists():
        error.add_note(f"What was to be overwritten is in {partial / _REPLACED}: the same command puts it back.")
        return
    if not journal.finished or not (partial / _FILES).is_dir():
        _remove(partial)
        if os.path.lexists(partial):
            error.add_note(f"Unfinished files that could not be removed are kept in {partial}.")
        return
    error.add_note(
        f"{len(journal.finished)} finished file(s) are kept in {partial}: the same command goes on from there, "
        f"--restart starts over, and removing that directory gives it up."
    )


def _remove(partial: Path) -> None:
    """Remove ``partial`` however impatiently the user interrupts that; its journal last, by which it is known."""
    while True:
        try:
            with suppress(OSError):
                _clear(partial, but=[_JOURNAL])
                (partial / _JOURNAL).unlink()
                partial.rmdir()
        except KeyboardInterrupt:
            continue
        return


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
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        with named(path):
            os.fsync(handle)
    finally:
        os.close(handle)
