"""What an output's sidecar remembers of the conversion that made it, for whoever gets the output."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from internvl_bridge._version import __version__
from internvl_bridge.convert.options import PATHS, Execution, Options
from internvl_bridge.notes import called


def record_of(
    command: str,
    options: Options,
    execution: Execution,
    filled: Sequence[str],
    warnings: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:
    """The program's version, the options that were chosen and change the output, what was accepted and what was said.

    ``filled`` are the keys of tensors that the source did not have.

    A source that is from elsewhere is named with its commit. Of paths only the last name is kept: outputs are uploaded,
    and a path shows how a machine and its user are called.
    """
    usual = asdict(Options())
    chosen = {name: value for name, value in asdict(options).items() if value != usual[name]}
    return {
        "program": f"internvl-bridge {__version__}",
        "command": command,
        **({} if execution.origin is None else {"source": execution.origin}),
        "options": {
            name: _called(name, value)
            for name, value in {**chosen, "adapters": [called(Path(place)) for place in options.adapters]}.items()
            if name in chosen
        },
        "filled": [*filled],
        "accepted": sorted(execution.accept),
        "warnings": [*warnings],
        "notes": [*notes],
    }


def _called(name: str, value: Any) -> Any:
    """The ``value`` of the option ``name`` without the path of a directory; what a link leads to has its own name."""
    if name in PATHS:
        return called(Path(value).resolve())
    return called(Path(value)) if name == "target_base" else value
