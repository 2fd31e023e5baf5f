"""Make an output directory appear complete or not at all."""

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from internvl_bridge.errors import OutputError


def check_output(source: Path, output: Path) -> None:
    """Raise OutputError if ``output`` must not be created: it exists, or lies in or around ``source``."""
    inside, around = Path(os.path.realpath(output)), Path(os.path.realpath(source))
    if inside == around or inside in around.parents or around in inside.parents:
        raise OutputError(f"{output} and {source} lie within each other.", "Give an output directory of its own.")
    is_free = not os.path.lexists(output) or _is_empty_directory(output)
    if not output.name or not is_free:
        raise OutputError(
            f"{output} exists and is not an empty directory that can be replaced.",
            "Remove it or choose another output.",
        )
    partial = partial_path(output)
    if os.path.lexists(partial):
        raise OutputError(
            f"{partial} exists: another conversion to {output} is running or was killed.",
            f"If none is running, remove it: rm -r {shlex.quote(str(partial))}",
        )


def partial_path(output: Path) -> Path:
    """Where the files of ``output`` are collected until they are complete."""
    return output.with_name(output.name + ".partial")


@contextmanager
def publishing(output: Path) -> Iterator[Path]:
    """Yield a new directory; rename it to ``output`` at the end, or remove it if anything fails.

    Raises OutputError if the directory cannot be made.
    """
    partial = partial_path(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
    except OSError as error:
        raise OutputError(
            f"{partial} cannot be created: {error.strerror}.", "Choose another output directory."
        ) from error
    try:
        yield partial
        _sync_directory(partial)
        partial.rename(output)
    except BaseException:
        _remove(partial)
        raise
    with suppress(OSError):  # the output is complete and in place: its parent need not be readable
        _sync_directory(output.parent)


def _remove(partial: Path) -> None:
    """Remove ``partial`` however impatiently the user interrupts that."""
    while True:
        try:
            return shutil.rmtree(partial, ignore_errors=True)
        except KeyboardInterrupt:
            continue


def write_bytes(path: Path, data: bytes) -> None:
    """Create ``path`` with ``data`` and make it durable."""
    with path.open("xb") as file:
        file.write(data)
        _sync(file)


def copy_file(source: Path, target: Path) -> None:
    """Create ``target`` with the contents of ``source``, of any size, and make it durable."""
    with source.open("rb") as ours, target.open("xb") as theirs:
        shutil.copyfileobj(ours, theirs)
        _sync(theirs)


def write_json(path: Path, value: object) -> None:
    """Create ``path`` with ``value`` as indented JSON, written piece by piece, and make it durable."""
    with path.open("x", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")
        _sync(file)


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
