"""Say which command goes on with what an earlier run has left."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from internvl_bridge.convert.options import Options
from internvl_bridge.reporting.commands import typed_path

_COMMANDS = ("to-hf", "to-custom", "repair", "merge", "extract", "cast")


def resuming_command(identity: Mapping[str, Any], output: Path) -> str | None:
    """The command that goes on with ``output``, from what its journal says; None if its source is not there any more.

    Example:
        >>> resuming_command({"options": {"format": "hf"}, "source": {"directory": "/gone"}}, Path("output"))
    """
    options, source = identity.get("options"), identity.get("source")
    if not isinstance(options, dict) or not isinstance(source, dict) or not isinstance(source.get("directory"), str):
        return None
    command, adapters = options.get("command"), options.get("adapter")
    if command not in _COMMANDS or not Path(source["directory"]).is_dir():
        return None
    place = output.parent if command == "extract" else output
    words: list[str] = []
    for adapter in adapters if isinstance(adapters, list) else ():
        words += ["--adapter", str(adapter)]
    for name, usual in asdict(Options()).items():
        chosen = options.get(name)
        if name != "adapters" and chosen is not None and chosen != usual:
            words += [f"--{name.replace('_', '-')}", str(chosen)]
    if options.get("consume"):
        words.append("--consume")
    if os.path.lexists(output):
        words.append("--overwrite")
    paths = [typed_path(path) for path in (source["directory"], place)]
    return " ".join(["internvl-bridge", str(command), *paths, *map(shlex.quote, words)])
