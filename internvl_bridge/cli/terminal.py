"""What every command does alike: progress on a terminal, refusals as a paragraph, exit codes."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import TextIO

import typer

from internvl_bridge._version import __version__
from internvl_bridge.cli.layout import lines_of, wrapped
from internvl_bridge.cli.progress_lines import files_text, progress_lines
from internvl_bridge.errors import BridgeError, DifferenceError, OutputError
from internvl_bridge.reporting.commands import NO_BREAK
from internvl_bridge.reporting.printable import printable
from internvl_bridge.reporting.tables import PLAIN_BARS, Part
from internvl_bridge.work.progress import Progress, Report, silent

DIFFERS, REFUSED, INTERRUPTED = 1, 2, 130
_NARROW, _WIDE = 76, 110
"""Columns from which on a progress bar has room for files and speed, and for sizes."""
_STYLES = {"Error": typer.colors.RED, "Warning": typer.colors.YELLOW}
"""The colours of the words that messages on stderr begin with."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is shown to people and to programs.

    ``kind`` is the name of its class. ``message`` is the whole paragraph. ``remedy`` is the part of it that says what
    to do, or None if there is no such part.
    """

    kind: str
    message: str
    remedy: str | None
    exit_code: int


@contextmanager
def exit_codes(also: Callable[[Failure], None] | None = None) -> Iterator[None]:
    """Turn errors into one paragraph on stderr and the documented exit code; ``also`` is called with the failure, too.

    SIGTERM and SIGHUP (a closed terminal) are treated as Ctrl-C, so that all of them clean up. A signal that is ignored
    (``nohup``) stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the last resort: no traceback for anybody)
        failure = failure_of(error)
        warn(failure.message if failure.kind == "Interrupted" else f"Error: {failure.message}")
        if also is not None:
            also(failure)
        raise typer.Exit(failure.exit_code) from None  # where nobody can be told, the exit code still says it


def failure_of(error: Exception | KeyboardInterrupt) -> Failure:
    """What to say of ``error``, and the exit code."""
    match error:
        case BridgeError():
            code = DIFFERS if isinstance(error, DifferenceError) else REFUSED
            return Failure(type(error).__name__, _noted(error, str(error)), error.remedy, code)
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            remedy = "Mend this and try again: no half output is visible."
            return Failure("OSError", _noted(error, f"{where}{error.strerror or error}. {remedy}"), remedy, REFUSED)
        case KeyboardInterrupt():
            return Failure("Interrupted", _noted(error, "Interrupted. No half output is visible."), None, INTERRUPTED)
        case _:
            return Failure("Defect", _noted(error, _defect(error)), None, REFUSED)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """A progress by bytes on stderr: a bar if that is a terminal, a line every half a minute anywhere else."""
    if quiet or sys.stderr is None:
        yield silent
        return
    if not sys.stderr.isatty():
        yield progress_lines(warn, time.monotonic)
        return
    from rich import progress as rich  # only where it is seen: it takes a while to import  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (
        rich.TextColumn("{task.description}"),
        *([rich.TextColumn("{task.fields[files]}")] if console.width >= _NARROW else []),
        rich.BarColumn(bar_width=None),
        *([rich.DownloadColumn(binary_units=True)] if console.width >= _WIDE else [rich.TaskProgressColumn()]),
        *([rich.TransferSpeedColumn()] if console.width >= _NARROW else []),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=console, transient=True, expand=True) as bar:

        def begin(task: str, total: int, files: int) -> Report:
            number, finished = bar.add_task(task, total=total, files=files_text(0, files)), 0

            def report(done: int, closed: int) -> None:
                nonlocal finished
                finished += closed
                bar.update(number, advance=done, files=files_text(finished, files))

            return report

        yield begin


def say(parts: Iterable[Part], renamed: Callable[[str], str] = str) -> None:
    """Print the ``parts`` of a report, as wide as the terminal is, and in colour on a terminal only.

    ``renamed`` is done to the text. Raises as :func:`put`.
    """
    width = shutil.get_terminal_size().columns if _is_terminal(sys.stdout) else None
    text = renamed("\n".join(lines_of(parts, width, color=_has_color(sys.stdout))))
    put(text if _is_unicode(sys.stdout) else text.translate(PLAIN_BARS))


def put(text: str) -> None:
    """Print ``text``; a reader that has gone away (``| head``) has read enough, and changes no exit code.

    Raises OutputError if nothing can be printed for another reason.
    """
    try:
        typer.echo(text, color=_has_color(sys.stdout))
    except OSError as error:
        _discard(sys.stdout)
        if not isinstance(error, BrokenPipeError):
            raise OutputError(
                f"The report cannot be printed on standard output: {error.strerror}.",
                "Everything else is done: print it elsewhere, or look at the result itself.",
            ) from error


def warn(line: str) -> None:
    """Print ``line`` on stderr, if that can be: it changes nothing where nobody can be told."""
    width = shutil.get_terminal_size().columns if _is_terminal(sys.stderr) else None
    word, colon, rest = "\n".join(wrapped(printable(line), width, indent=2)).partition(":")
    if colon and word in _STYLES and _has_color(sys.stderr):
        word = typer.style(word, fg=_STYLES[word], bold=True)
    try:
        typer.echo(f"{word}{colon}{rest}".replace(NO_BREAK, " "), err=True, color=_has_color(sys.stderr))
    except OSError:
        _discard(sys.stderr)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _has_color(stream: TextIO | None) -> bool:
    """Whether ``stream`` shows colours, and nobody asked for none (https://no-color.org)."""
    return _is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _is_unicode(stream: TextIO | None) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"


def _noted(error: BaseException, what: str) -> str:
    """``what`` went wrong, and what was noted about it on the way: what is left to go on with."""
    return " ".join((what, *getattr(error, "__notes__", ())))


def _defect(error: Exception) -> str:
    place = extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:500]}"
    return (
        f"{what}. This is a defect of internvl-bridge {__version__}, which should have said what is wrong. Please "
        f"report this line and the command to its issue tracker. No half output is visible."
    )


def _discard(stream: TextIO) -> None:
    """Let what ``stream`` could not write go nowhere: Python tries once more at its end, and would exit with 120."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
