"""Give an output its place, or undo that: at every instant the old one or the new one is whole."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from internvl_bridge.errors import OutputError
from internvl_bridge.storage.durability import sync_directory
from internvl_bridge.storage.exchange import exchange
from internvl_bridge.storage.held_directory import HeldDirectory
from internvl_bridge.storage.journal import Journal, Record, Swap
from internvl_bridge.storage.output_place import check_free
from internvl_bridge.storage.workspace import FILES, Place

REPLACED = "replaced"


def put_in_place(place: Place, journal: Journal, made: Sequence[Path], *, overwrite: bool) -> None:
    """Give the files their place, and make that durable, as well as the directories ``made`` for it; or change nothing.

    With ``overwrite`` they change places with what is there, in one step where the system can do that. Otherwise
    there are two steps, and between them the old output is at REPLACED alone.
    """
    old = _inode(place.above, place.name) if overwrite else None
    new = place.around.status(FILES).st_ino
    swap = None if old is None else Swap(old, new)
    try:
        if swap is None:
            place.around.move(FILES, place.above, place.name)
        else:
            check_free(place.output, overwrite=True)  # it may have become another one since
            journal.swap(swap)
            _swap(place)
        for directory in dict.fromkeys((place.around.path, place.above.path, *(path.parent for path in made))):
            sync_directory(directory)
    except BaseException:
        _undo(place, new, swap)
        raise


def recover(place: Place, found: Record | None) -> None:
    """Bring order into a replacement in which a run was killed, of which ``found`` was written down.

    Raises OutputError if only the user can know which output is the right one.
    """
    files, replaced = (_inode(place.around, name) for name in (FILES, REPLACED))
    if files is None:
        return  # the new one has come, and what it replaced may be half removed
    if found is not None and found.swap is not None and files == found.swap.old:
        place.around.move(FILES, place.around, REPLACED)  # they have changed places
    elif replaced is None:
        return
    elif _inode(place.above, place.name) is None:
        place.around.move(REPLACED, place.above, place.name)
    else:
        raise OutputError(
            f"{place.around.path / REPLACED} is what {place.output} was before an interrupted --overwrite, but "
            f"{place.output} is there again.",
            "Move one of them away.",
        )


def has_swapped(partial: Path, found: Record) -> bool:
    """Whether the files in ``partial`` are those of an old output, for which the new one has come."""
    return found.swap is not None and (partial / FILES).lstat().st_ino == found.swap.old


def _swap(place: Place) -> None:
    if exchange(place.around, FILES, place.above, place.name):
        place.around.move(FILES, place.around, REPLACED)
    else:
        place.above.move(place.name, place.around, REPLACED)
        place.around.move(FILES, place.above, place.name)


def _undo(place: Place, new: int, swap: Swap | None) -> None:
    """Put everything back, as far as that can be done: the next run does the rest."""
    kept = next((name for name in (FILES, REPLACED) if swap and _inode(place.around, name) == swap.old), None)
    with suppress(OSError):
        if _inode(place.above, place.name) == new:
            if kept is not None and exchange(place.around, kept, place.above, place.name):
                if kept != FILES:
                    place.around.move(kept, place.around, FILES)
            elif _inode(place.around, FILES) is None:
                place.above.move(place.name, place.around, FILES)
    with suppress(OSError):
        if kept is not None and _inode(place.above, place.name) is None:
            place.around.move(kept, place.above, place.name)


def _inode(directory: HeldDirectory, name: str) -> int | None:
    status = directory.found(name)
    return None if status is None else status.st_ino
