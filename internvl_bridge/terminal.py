"""What every command does alike: progress on a terminal, refusals as a paragraph, exit codes."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from internvl_bridge.errors import BridgeError, DifferenceError
from internvl_bridge.progress import Advance, Progress, silent

DONE, DIFFERS, REFUSED, INTERRUPTED = 0, 1, 2, 130


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn errors into one paragraph on stderr and the documented exit code.

    SIGTERM is treated as Ctrl-C, so that both clean up.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except DifferenceError as error:
        _fail(f"Error: {error}", DIFFERS)
    except BridgeError as error:
        _fail(f"Error: {error}", REFUSED)
    except BrokenPipeError:
        sys.stderr.close()
        raise typer.Exit(DONE) from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(
            f"Error: {where}{error.strerror or error}. Nothing was left behind; mend this and try again.",
            REFUSED,
        )
    except KeyboardInterrupt:
        _fail("Interrupted. Nothing was left behind.", INTERRUPTED)


@contextmanager
def progress_bar(*, quiet: bool) -> Iterator[Progress]:
    """A progress by bytes on stderr if that is a terminal, and none anywhere else."""
    if quiet or not sys.stderr.isatty():
        yield silent
        return
    from rich import progress as rich  # only where it is seen: it takes a while to import  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.DownloadColumn(binary_units=True),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=Console(stderr=True), transient=True) as bar:

        def begin(task: str, total: int) -> Advance:
            number = bar.add_task(task, total=total)
            return lambda done: bar.advance(number, done)

        yield begin


def printable(text: str) -> str:
    """``text`` without control characters: keys and file names come from strangers."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> None:
    typer.echo(printable(message), err=True)
    raise typer.Exit(code) from None
