"""Make errors of the system name their file: those of calls on open files do not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Give an OSError that names no file the name ``path``."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
