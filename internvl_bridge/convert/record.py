"""What an output's sidecar remembers of the conversion that made it, for whoever gets the output."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from internvl_bridge._version import __version__
from internvl_bridge.convert.options import PATHS, Execution, Options
from internvl_bridge.metadata.sidecar import LINKED
from internvl_bridge.notes import called

NO_LINKS: Mapping[str, str] = MappingProxyType({})


def record_of(
    options: Options,
    execution: Execution,
    filled: Sequence[str],
    warnings: Sequence[str],
    notes: Sequence[str],
    linked: Mapping[str, str] = NO_LINKS,
) -> dict[str, Any]:
    """The program's version, the options that were chosen and change the output, what was accepted and what was said.

    ``filled`` are the keys of tensors that the source did not have. ``linked`` are the files that are links, and where
    their checksums come from.

    Of paths only the last name is kept: outputs are uploaded, and a path shows how a machine and its user are called.
    """
    usual = asdict(Options())
    chosen = {name: value for name, value in asdict(options).items() if value != usual[name]}
    return {
        "program": f"internvl-bridge {__version__}",
        "options": {
            name: called(Path(value)) if name in {*PATHS, "target_base"} else value
            for name, value in {**chosen, "adapters": [called(Path(place)) for place in options.adapters]}.items()
            if name in chosen
        },
        "filled": [*filled],
        "accepted": sorted(execution.accept),
        "warnings": [*warnings],
        "notes": [*notes],
        **({LINKED: dict(linked)} if linked else {}),
    }
