"""Save a report where somebody wants it."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from internvl_bridge._version import __version__
from internvl_bridge.errors import OptionError, OutputError
from internvl_bridge.metadata.sidecar import SIDECAR_FILE
from internvl_bridge.pages.html import as_page
from internvl_bridge.pages.page import Made, Page
from internvl_bridge.pages.picture import as_picture
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.storage.small_files import write_bytes

_FORMS = {".html": as_page, ".svg": as_picture}
_MARKS = (b'<meta name="generator" content="internvl-bridge ', b"<!-- Made by internvl-bridge ")
_LONGEST_DATE = 11
"""Digits of seconds since 1970 that a calendar has a date for."""
_BEGINNING = 4096
"""Bytes of a file in which a report has its mark."""


def check_report_place(path: Path, output: Path | None = None) -> None:
    """Raise a BridgeError if no report can be saved as ``path``: before the work, which can take hours.

    A report of an earlier run is replaced, any other file is not. No report is saved in the directory ``output``, or in
    one that a conversion has made: the checkpoint would not know that file.
    """
    if path.suffix.lower() not in _FORMS or "\0" in str(path):
        raise OptionError(
            f"The report {path} is neither a page nor a picture.",
            f"Give it a name that ends with .html (a page) or .svg (a picture): {typed_path(f'{path}.html')}",
        )
    place = _real(path)
    home, outside = place.parent, None if output is None else _real(output)
    if outside in {place, *place.parents} or (home / SIDECAR_FILE).exists():
        checkpoint = outside or home
        raise OptionError(
            f"The report {path} would be in {checkpoint}, which is for the files of a checkpoint only.",
            f"Save it beside that, for instance as {typed_path(f'{checkpoint}-report{path.suffix}')}",
        )
    if not home.is_dir():
        raise OutputError(
            f"{path.parent} is not a directory, so {path.name} cannot be saved there.",
            f"Make it first: mkdir -p {typed_path(path.parent)}",
        )
    try:
        _try(path)
        is_free = not os.path.lexists(path) or _is_report(path)
    except OSError as error:
        raise OutputError(
            f"The report cannot be saved as {path}: {error.strerror}.", "Choose another place."
        ) from error
    if not is_free:
        raise OutputError(f"{path} exists and is not a report of this program.", "Choose another name, or remove it.")


def save(page: Page, path: Path, command: str = "", renamed: Callable[[str], str] = str) -> int:
    """Save ``page``, made by ``command``, as ``path``: complete or not at all. Gives its size in bytes.

    ``renamed`` is what its text passes through: directories that stand for places elsewhere get their names.

    Raises as :func:`check_report_place`; OutputError, too, for what the disk refuses.
    """
    check_report_place(path)
    text = renamed(_FORMS[path.suffix.lower()](page, Made(command, __version__, _today()))).encode()
    partial = _partial(path)
    try:
        write_bytes(partial, text)
        partial.replace(path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise OutputError(
            f"The report cannot be saved as {path}: {error.strerror}.",
            "Everything else is done. Mend this for the next report.",
        ) from error
    return len(text)


def _real(path: Path) -> Path:
    """``path`` without links; one that leads to itself stays as it is, where :meth:`Path.resolve` raises."""
    return Path(os.path.realpath(path))


def _partial(path: Path) -> Path:
    """The file that becomes ``path``."""
    return path.with_name(f".report-{os.getpid()}.partial")


def _try(path: Path) -> None:
    """Raise OSError where no file can be made, or none of that name."""
    with suppress(FileNotFoundError):
        path.lstat()
    _partial(path).touch()
    _partial(path).unlink()


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(_BEGINNING)
    return any(mark in beginning for mark in _MARKS)


def _today() -> str:
    """The date; the one that https://reproducible-builds.org/specs/source-date-epoch/ states, where it does."""
    stated = os.environ.get("SOURCE_DATE_EPOCH", "")
    is_date = stated.isdecimal() and len(stated) <= _LONGEST_DATE
    return time.strftime("%Y-%m-%d", time.gmtime(int(stated) if is_date else None))
