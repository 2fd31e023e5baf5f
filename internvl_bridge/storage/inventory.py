"""Know whether a directory holds what one run has put there, and nothing else."""

from collections.abc import Mapping
from pathlib import Path

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.stamps import Stamp, stamp_of

Inventory = Mapping[str, Stamp]
"""What each file was before it was read back, by name."""


def check_inventory(directory: Path, inventory: Inventory) -> None:
    """Raise OutputError unless ``directory`` holds the files of ``inventory`` as they were, and nothing else.

    A file that was changed, cut off, replaced, removed or added since is not what was compared with the source.
    """
    there = {path.name for path in directory.iterdir()}
    for name in sorted(there | inventory.keys()):
        path = directory / name
        if name not in there:
            raise _foreign(path, "was removed")
        if name not in inventory:
            raise _foreign(path, "was added")
        now, then = stamp_of(path), inventory[name]
        if path.is_symlink() or (now.size, now.modified, now.place) != (then.size, then.modified, then.place):
            raise _foreign(path, "was changed")


def _foreign(path: Path, what: str) -> OutputError:
    return OutputError(
        f"{path} {what} by somebody else while the output was being made, so that nothing was published.",
        "Give the same command again when nothing else uses that directory: it compares what is there.",
    )
