"""Do the same to several files at a time."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Event, Lock, Semaphore
from typing import TypeVar

from internvl_bridge.progress import Advance

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WORKERS = 4
"""More compete for one disk, and each holds some megabytes."""


class _StoppedError(Exception):
    """Another worker has failed, or the user has interrupted."""


def usual_workers() -> int:
    """How many workers this machine has use for."""
    return min(_MOST_WORKERS, os.cpu_count() or 1)


def in_parallel(
    work: Callable[[Item, Advance], Result], items: Sequence[Item], workers: int, advance: Advance
) -> list[Result]:
    """The results of ``work`` on each of ``items``, in their order, ``workers`` at a time.

    ``work`` is given an ``advance`` that it must call now and then: through it, it is stopped as soon as another one
    fails. Of several errors, that of the first item is raised. At the end, however it came, nothing works any more.
    """
    stop, lock, turns = Event(), Lock(), Semaphore(workers)

    def step(done: int) -> None:
        if stop.is_set():
            raise _StoppedError
        with lock:
            advance(done)

    def take_turn(item: Item) -> Result:
        with turns:
            if stop.is_set():
                raise _StoppedError
            return work(item, step)

    with ThreadPoolExecutor(workers) as pool:
        futures: list[Future[Result]] = []
        try:
            futures += [pool.submit(take_turn, item) for item in items]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            for _ in range(workers):  # the pool does not wait for a thread whose start was interrupted: it works, too
                turns.acquire()
            turns.release(workers)
    errors = [future.exception() for future in futures if not future.cancelled()]
    real = [error for error in errors if error is not None and not isinstance(error, _StoppedError)]
    if real:
        raise real[0]
    return [future.result() for future in futures]
