"""Compare byte ranges of two checkpoints, bit for bit, in bounded memory."""

from collections.abc import Sequence

from internvl_bridge.progress import Advance
from internvl_bridge.storage.checkpoint import Piece
from internvl_bridge.storage.reading import FileReader


def first_difference(
    left: Sequence[Piece], right: Sequence[Piece], readers: FileReader, advance: Advance
) -> int | None:
    """Offset of the first byte that differs between two equally long sequences of ranges, or None.

    Both sides are read to the end only while they agree.
    """
    position = 0
    for ours, theirs in zip(readers.windows(left), readers.windows(right), strict=True):
        if ours != theirs:
            return position + next(i for i, (x, y) in enumerate(zip(ours, theirs, strict=True)) if x != y)
        position += len(ours)
        advance(len(ours))
    return None
