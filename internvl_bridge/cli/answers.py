"""What a command answers, and how it is printed: as text for people, or with ``--json`` as one object for programs.

Whatever the command and however it ends, ``--json`` prints one object of the same form on stdout.
docs/json-output.schema.json describes every field.
"""

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from internvl_bridge._version import __version__
from internvl_bridge.checkpoint.looking import Look
from internvl_bridge.cli.terminal import Failure, exit_codes, failure_of, put, say
from internvl_bridge.errors import BridgeError, OptionError
from internvl_bridge.reporting.commands import typed_path
from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.reporting.tables import Part

if TYPE_CHECKING:
    from internvl_bridge.pages.page import Page

_PROGRAM = "internvl-bridge"
SCHEMA = 1
"""The version of the form. It changes when a field goes or means something else, not when one is added."""


@dataclass(frozen=True, slots=True)
class PrintOptions:
    """How results are printed, and where a report is saved; ``yes``: nothing is asked.

    ``push_to`` is the repository that an output is brought to, ``private`` if it is created.
    """

    as_json: bool
    verbose: bool
    quiet: bool
    dry_run: bool = False
    report: Path | None = None
    yes: bool = False
    push_to: str | None = None
    private: bool = False

    @property
    def bars(self) -> bool:
        """Whether progress is shown by others, too."""
        return not (self.quiet or self.as_json)


@dataclass(frozen=True, slots=True)
class PlaceRead:
    """A place elsewhere, with its commit, and how many bytes were read from it; None if they went through a cache.

    ``names`` are those by which directories are called that stood for it.
    """

    place: str
    bytes: int | None
    names: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, text: str) -> str:
        """``text`` with the names of places."""
        for directory, name in self.names.items():
            text = text.replace(directory, name)
        return text

    @classmethod
    def of(cls, look: Look) -> "PlaceRead | None":
        """The place of ``look``, if it is not here."""
        return None if look.origin is None else cls(look.origin, look.bytes, {str(look.directory): look.name})

    def as_json(self) -> dict[str, Any]:
        """The place as values that :func:`json.dumps` takes."""
        return {"place": self.place, "bytes": self.bytes}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found or did: ``values`` for programs, of the kind ``kind``, and ``parts`` for people.

    ``page`` is the same to look at, where there is one. ``place`` is where it is from, if not here. ``refusal``: the
    command ends with this error, although it has something to print.
    """

    kind: str
    values: Callable[[], Mapping[str, Any]]
    parts: Callable[[], Iterable[Part]]
    page: "Callable[[], Page] | None" = None
    exit_code: int = 0
    refusal: BridgeError | None = None
    place: PlaceRead | None = None

    def renamed(self, text: str) -> str:
        """``text`` with the names of places elsewhere."""
        return text if self.place is None else self.place.renamed(text)


def answer(command: str, work: Callable[[], Answer], show: PrintOptions, output: Path | None = None) -> None:
    """Print what ``work`` answers or why it fails, and end with its exit code. Raises :class:`typer.Exit`.

    A report is saved before anything is printed, and not in ``output``, which the command makes. If it cannot be saved,
    the answer is printed all the same.
    """
    with exit_codes(partial(say_failure, command) if show.as_json else None):
        if show.report is not None:
            _check_report(show.report, output)
        found = work()
        saved, refusal = _saved(found, show.report)
        if show.as_json:
            failure = None if refusal is None else failure_of(refusal)
            text = _json(command, failure.exit_code if failure else found.exit_code, found, failure)
            put(found.renamed(text))
        elif not show.quiet:
            parts = (*found.parts(), *_about(found.place), *saved)
            say(parts, found.renamed)
    with exit_codes():
        if refusal is not None:
            raise refusal
        raise typer.Exit(found.exit_code)


def _about(place: PlaceRead | None) -> Iterator[Part]:
    if place is not None:
        read = "" if place.bytes is None else f"; {human_size(place.bytes)} were read of it"
        yield f"From {place.place}{read}."


def _check_report(place: Path, output: Path | None) -> None:
    """Refuse a report that cannot be saved as ``place``."""
    try:
        from internvl_bridge.pages.saving import check_report_place  # noqa: PLC0415 (only where it is wanted)
    except ModuleNotFoundError as error:
        raise OptionError(
            f"--report needs {error.name}, which is not installed.", f"pip install {error.name}"
        ) from error
    check_report_place(place, output)


def _saved(found: Answer, place: Path | None) -> tuple[Iterable[Part], BridgeError | None]:
    """Save the page of ``found`` as ``place``, if it is wanted: what to print about it, and what to end with."""
    if place is None or found.page is None:
        return (), found.refusal
    from internvl_bridge.pages.saving import save  # noqa: PLC0415 (only where it is wanted)

    try:
        size = save(found.page(), place, shlex.join([_PROGRAM, *sys.argv[1:]]), found.renamed)
    except BridgeError as error:
        return (), found.refusal or error
    except KeyboardInterrupt as error:
        error.add_note("Only the report is missing: everything else is done.")
        raise
    return [f"Report: {typed_path(place)} ({human_size(size)})"], found.refusal


def say_failure(command: str | None, failure: Failure) -> None:
    """Print ``failure`` for programs."""
    put(_json(command, failure.exit_code, None, failure))


def _json(command: str | None, exit_code: int, found: Answer | None, failure: Failure | None) -> str:
    values = {
        "schema": SCHEMA,
        "version": __version__,
        "command": command,
        "exit_code": exit_code,
        "error": failure and {"kind": failure.kind, "message": failure.message, "remedy": failure.remedy},
        "place": found.place.as_json() if found and found.place else None,
        "kind": found and found.kind,
        "result": found and found.values(),
    }
    return json.dumps(values, indent=2)
