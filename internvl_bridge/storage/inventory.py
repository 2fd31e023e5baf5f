"""Know whether a directory holds what one run has put there, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.held_directory import HeldDirectory
from internvl_bridge.storage.linking import leads_to
from internvl_bridge.storage.local_files import LocalFiles
from internvl_bridge.storage.reading import FileReader, file_checksum
from internvl_bridge.storage.stamps import Stamp, stamp_from
from internvl_bridge.work.progress import nothing


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file was before it was read back, and its checksum; None if no pass has seen all of its bytes.

    ``leads_to``: it is a link to that file.
    """

    stamp: Stamp
    checksum: str | None
    leads_to: Path | None = None


Inventory = Mapping[str, Entry]
"""The files of a directory, by name."""


def check_inventory(directory: HeldDirectory, inventory: Inventory) -> None:
    """Raise OutputError unless ``directory`` holds the files of ``inventory`` as they were, and nothing else.

    A file that was changed, cut off, replaced, removed or added since is not what was compared with the source. One
    whose inode or times differ may be the same, as some file systems do not keep them: it is read once more.
    """
    there, files = set(directory.names()), directory.files()
    for name in sorted(there | inventory.keys()):
        path = directory.path / name
        if name not in there:
            raise _foreign(path, "was removed")
        if name not in inventory:
            raise _foreign(path, "was added")
        if not _is_as_it_was(directory, path, inventory[name], is_file=name in files):
            raise _foreign(path, "was changed")


def _is_as_it_was(directory: HeldDirectory, path: Path, entry: Entry, *, is_file: bool) -> bool:
    if entry.leads_to is not None:
        return leads_to(directory, path.name, entry.leads_to)
    if not is_file:
        return False
    now = stamp_from(directory.status(path.name))
    if now.size != entry.stamp.size:
        return False
    if now == entry.stamp and not entry.stamp.is_touched(now):
        return True
    with FileReader(LocalFiles(directory=directory)) as readers:
        return file_checksum(path, readers, nothing) == entry.checksum


def _foreign(path: Path, what: str) -> OutputError:
    return OutputError(
        f"{path} {what} by somebody else while the output was being made, so that nothing was published.",
        "Give the same command again when nothing else uses that directory: it compares what is there.",
    )
