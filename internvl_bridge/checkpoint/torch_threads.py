"""How many threads torch computes on. Imports torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch


class _Users:
    """How many want one thread: the first one changes torch's number, and the last one changes it back.

    torch has one number for the whole process. If each user restored what it found, overlapping ones would leave 1.
    """

    def __init__(self) -> None:
        self._lock, self._count, self._before = Lock(), 0, 1

    def enter(self) -> None:
        with self._lock:
            if not self._count:
                self._before = torch.get_num_threads()
            self._count += 1
            torch.set_num_threads(1)

    def leave(self) -> None:
        with self._lock:
            self._count -= 1
            if not self._count:
                torch.set_num_threads(self._before)


_USERS = _Users()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Let torch compute on one thread in each thread that calls it: workers are enough, and sums must not vary."""
    _USERS.enter()
    try:
        yield
    finally:
        _USERS.leave()
