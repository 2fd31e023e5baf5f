"""Say which command goes on with what an earlier run has left."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from internvl_bridge.convert.options import Options
from internvl_bridge.errors import BridgeError
from internvl_bridge.mapping.formats import Format
from internvl_bridge.metadata.config.file import detect_format, read_config


def resuming_command(identity: Mapping[str, Any], output: Path) -> str | None:
    """The command that goes on with ``output``, from what its journal says; None if its source is not there any more.

    Example:
        >>> resuming_command({"options": {"format": "hf"}, "source": {"directory": "/gone"}}, Path("output"))
    """
    options, source = identity.get("options"), identity.get("source")
    if not isinstance(options, dict) or not isinstance(source, dict) or not isinstance(source.get("directory"), str):
        return None
    try:
        found = detect_format(read_config(Path(source["directory"])))
    except BridgeError:
        return None
    wanted = options.get("format")
    command = "repair" if wanted == found.value else "to-hf" if wanted == Format.HF.value else "to-custom"
    words = ["internvl-bridge", command, source["directory"], str(output)]
    for name, usual in asdict(Options()).items():
        if (chosen := options.get(name)) not in {None, usual}:
            words += [f"--{name.replace('_', '-')}", str(chosen)]
    if os.path.lexists(output):
        words.append("--overwrite")
    return shlex.join(words)
