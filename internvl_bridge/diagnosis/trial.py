"""Try a conversion without writing: what it makes, and all that it refuses on the way."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from internvl_bridge.convert.options import ACCEPTABLE, Execution
from internvl_bridge.diagnosis.findings import Finding
from internvl_bridge.errors import BridgeError

NOWHERE = Path(os.devnull, "output")
"""The output of a conversion that is only tried: nothing can be there, and nothing lies in or around it."""

_OPTIONS = {
    "tokenizer": "DIR",
    "fill-from": "BASE",
    "reference": "DIR",
    "base": "BASE",
    "state-dict": "NAME",
    "system-message": "TEXT",
    "transformers": "4",
}
"""Options of conversions that texts name, with what stands for their values."""
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class Trial(Generic[_Made]):
    """What a conversion makes, None if it refuses; its refusals; and the ``command`` that does it, with its options."""

    made: _Made | None
    refusals: tuple[Finding, ...]
    command: str


def tried(prepare: Callable[[Execution], _Made], command: str) -> Trial[_Made]:
    """Try ``prepare``, which ``command`` carries out.

    What can be accepted is accepted then, so that the checks after it are made, too.
    """
    accepted: list[str] = []
    refusals: list[Finding] = []
    while True:
        full = "".join((command, *(f" --accept {name}" for name in accepted)))
        try:
            return Trial(prepare(Execution(accept=frozenset(accepted))), tuple(refusals), full)
        except BridgeError as error:
            refusals.append(refused(error, command))
            lifts = [name for name in ACCEPTABLE if f"--accept {name}" in str(error) and name not in accepted]
            if not lifts:
                return Trial(None, tuple(refusals), full)
            accepted += lifts


def with_options(command: str, texts: Iterable[str]) -> str:
    """``command`` with the options that ``texts`` name."""
    said = " ".join(texts)
    named = [option for option in _OPTIONS if f"--{option}" in said and f"--{option} " not in command]
    return "".join((command, *(f" --{option} {_OPTIONS[option]}" for option in named)))


def refused(error: BridgeError, command: str | None = None) -> Finding:
    """A refusal as a finding, with how ``command`` is typed if an option of it is the way out."""
    full = None if command is None else with_options(command, [error.remedy])
    return Finding("wrong", error.reason, error.remedy if full == command else f"{error.remedy} That is: {full}")
