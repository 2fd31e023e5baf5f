"""Do the same to several files at a time."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from threading import Event, Lock
from typing import TypeVar

from internvl_bridge.errors import OptionError
from internvl_bridge.work.interrupts import interrupts_held
from internvl_bridge.work.progress import Advance, Report

Item = TypeVar("Item")
Result = TypeVar("Result")

LIMIT_OF_WORKERS = 256
_MOST_WORKERS = 4
"""More compete for one disk, and each holds some megabytes."""


def check_workers(workers: int | None) -> int:
    """The number of workers that is meant. Raises OptionError if ``workers`` is too small or too large."""
    if workers is None:
        return min(_MOST_WORKERS, os.cpu_count() or 1)
    if not 1 <= workers <= LIMIT_OF_WORKERS:
        raise OptionError(f"{workers} is not a number of workers.", f"Use 1 to {LIMIT_OF_WORKERS}.")
    return workers


class _StoppedError(Exception):
    """Another worker has failed, or has noticed that the user interrupts."""


def in_parallel(
    work: Callable[[Item, Advance], Result], items: Sequence[Item], workers: int, report: Report
) -> list[Result]:
    """The results of ``work`` on each of ``items``, in their order, ``workers`` at a time.

    ``work`` is given an ``advance`` that it must call now and then: through it, it is stopped as soon as another one
    fails or the user interrupts. Within :func:`interrupts_held`, the given ``report`` notices an interrupt instead. Of
    several errors, that of the first item is raised. At the end, however it came, nothing works any more.
    """
    stop, lock = Event(), Lock()

    def one(item: Item) -> Result:
        result = work(item, step)
        with lock:
            report(0, 1)
        return result

    def step(done: int) -> None:
        if stop.is_set():
            raise _StoppedError
        check()
        with lock:
            report(done, 0)

    with interrupts_held() as check, ThreadPoolExecutor(workers) as pool:
        futures: list[Future[Result]] = []
        try:
            futures += [pool.submit(one, item) for item in items]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    errors = [future.exception() for future in futures if not future.cancelled()]
    real = [error for error in errors if error is not None and not isinstance(error, _StoppedError)]
    if real:
        raise real[0]
    return [future.result() for future in futures]
