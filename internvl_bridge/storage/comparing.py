"""Compare byte ranges of two checkpoints, bit for bit, in bounded memory."""

import ctypes
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest

from internvl_bridge.work.progress import Advance

_MEMCMP = ctypes.CDLL(None).memcmp


def first_difference(
    left: Iterable[memoryview], right: Iterable[memoryview], advance: Advance, *, ahead: bool = True
) -> int | None:
    """Offset of the first byte that differs between two sequences of windows of one size, or None.

    Both sides are read to the end only while they agree; one that ends early differs where it ends. The right side is
    read in a thread of its own, one window ahead: a window of it must stay valid until two more were asked for. Without
    ``ahead`` it is not: a thread costs more than it saves where there is but one window.
    """
    position = 0
    for ours, theirs in zip_longest(left, _ahead(right) if ahead else right, fillvalue=memoryview(b"")):
        if len(ours) != len(theirs) or not _equal(ours, theirs):
            pairs = enumerate(zip(ours, theirs, strict=False))
            return position + next((i for i, (x, y) in pairs if x != y), min(len(ours), len(theirs)))
        position += len(ours)
        advance(len(ours))
    return None


def _equal(left: memoryview, right: memoryview) -> bool:
    """Whether two writable views of one length hold the same bytes; memoryviews themselves compare one by one."""
    ours, theirs = (ctypes.addressof(ctypes.c_char.from_buffer(view)) for view in (left, right))
    same: int = _MEMCMP(ctypes.c_void_p(ours), ctypes.c_void_p(theirs), ctypes.c_size_t(len(left)))
    return same == 0


def _ahead(windows: Iterable[memoryview]) -> Iterator[memoryview]:
    source = iter(windows)
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, source, None)
        while (window := coming.result()) is not None:
            coming = reader.submit(next, source, None)
            yield window
