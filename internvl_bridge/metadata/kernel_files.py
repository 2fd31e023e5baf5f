"""Refuse a file of the kernel in the place of a file of a checkpoint."""

import os
from pathlib import Path

from internvl_bridge.errors import CheckpointError

_PLACES = ("/proc", "/sys")


def check_no_kernel_files(directory: Path) -> None:
    """Raise CheckpointError if anything in ``directory`` leads to a file of the kernel.

    Such a file looks like any other one. What it has is about the process that asks, its environment for instance.
    """
    devices = {place.stat().st_dev for place in map(Path, _PLACES) if place.is_mount()}
    for path in directory.iterdir():
        if path.is_symlink() and path.is_file() and path.stat().st_dev in devices:
            raise CheckpointError(
                f"{path} leads to {os.path.realpath(path)}, which is of the kernel and not of a checkpoint.",
                "Remove it, or put a copy of the file there.",
            )
