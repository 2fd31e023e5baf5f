"""Try a conversion without writing: what it makes, and all that it refuses on the way."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from internvl_bridge.convert.options import ACCEPTABLE, Execution
from internvl_bridge.diagnosis.findings import Finding, Severity
from internvl_bridge.errors import BridgeError
from internvl_bridge.reporting.commands import typed_path

NOWHERE = Path(os.devnull, "output")
"""The output of a conversion that is only tried: nothing can be there, and nothing lies in or around it."""

_OPTIONS = {"tokenizer": "DIR", "reference": "DIR", "base": "BASE", "system-message": "TEXT", "transformers": "4"}
"""Options that texts name, with what stands for their values."""
_Conversion = TypeVar("_Conversion")


def tried(prepare: Callable[[Execution], _Conversion]) -> tuple[_Conversion | None, list[Finding]]:
    """What ``prepare`` makes, None if it refuses, and its refusals.

    What can be accepted is accepted then, so that the checks after it are made, too.
    """
    accepted: frozenset[str] = frozenset()
    refusals: list[Finding] = []
    while True:
        try:
            return prepare(Execution(accept=accepted)), refusals
        except BridgeError as error:
            refusals.append(refused(error))
            lifts = {name for name in ACCEPTABLE if f"--accept {name}" in str(error)} - accepted
            if not lifts:
                return None, refusals
            accepted |= lifts


def said(severity: Severity, text: str, command: str, place: str) -> Finding:
    """What ``command`` says about the directory ``place``, with how to type it with the options that the text names."""
    named = [option for option in _OPTIONS if f"--{option}" in text]
    if not named:
        return Finding(severity, text)
    options = "".join(f" --{option} {_OPTIONS[option]}" for option in named)
    return Finding(severity, text, f"internvl-bridge {command} {typed_path(place)} OUTPUT{options}")


def refused(error: BridgeError) -> Finding:
    """A refusal as a finding."""
    return Finding("wrong", error.reason, error.remedy)
