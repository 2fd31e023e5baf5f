"""What a command answers, and how it is printed: as text for people, or with ``--json`` as one object for programs.

Whatever the command and however it ends, ``--json`` prints one object of the same form on stdout.
docs/json-output.schema.json describes every field.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import typer

from internvl_bridge._version import __version__
from internvl_bridge.cli.terminal import Failure, exit_codes, failure_of, put, say
from internvl_bridge.errors import BridgeError
from internvl_bridge.reporting.tables import Part

SCHEMA = 1
"""The version of the form. It changes when a field goes or means something else, not when one is added."""


@dataclass(frozen=True, slots=True)
class PrintOptions:
    """How results are printed."""

    as_json: bool
    verbose: bool
    quiet: bool
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found or did: ``values`` for programs, of the kind ``kind``, and ``parts`` for people.

    ``refusal``: the command ends with this error, although it has something to print.
    """

    kind: str
    values: Callable[[], Mapping[str, Any]]
    parts: Callable[[], Iterable[Part]]
    exit_code: int = 0
    refusal: BridgeError | None = None


def answer(command: str, work: Callable[[], Answer], show: PrintOptions) -> None:
    """Print what ``work`` answers or why it fails, and end with its exit code. Raises :class:`typer.Exit`."""
    with exit_codes(partial(say_failure, command) if show.as_json else None):
        found = work()
        if show.as_json:
            failure = None if found.refusal is None else failure_of(found.refusal)
            put(_json(command, failure.exit_code if failure else found.exit_code, found, failure))
        elif not show.quiet:
            say(found.parts())
    with exit_codes():
        if found.refusal is not None:
            raise found.refusal
        raise typer.Exit(found.exit_code)


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
        "kind": found and found.kind,
        "result": found and found.values(),
    }
    return json.dumps(values, indent=2)
