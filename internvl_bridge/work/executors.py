"""Give work to an executor, so much at a time that memory stays bounded."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOOK = 0.2
"""Seconds after which an interrupt is noticed."""
_PATIENCE = 30.0
"""Seconds in which work that was begun should end when nobody waits for it any more."""


def given_to(
    executor: Executor,
    work: Callable[[Item], Result],
    items: Iterable[Item],
    limit: int,
    *,
    check: Callable[[], object],
    cancel: Callable[[], object],
) -> Generator[tuple[Item, Future[Result]]]:
    """Give ``work`` on each of ``items`` to ``executor``, at most ``limit`` at a time; yield each when it is done.

    What ``check`` raises ends it: it is called several times a second. If it ends early, or is closed, ``cancel`` is
    called, which should stop what is under way. That is awaited for half a minute at most. What was done before
    something failed comes first. Raises BrokenExecutor if it takes no more work.
    """
    remaining = iter(items)
    pending: dict[Future[Result], Item] = {}
    broken: RuntimeError | None = None
    try:
        while True:
            try:
                pending.update((executor.submit(work, item), item) for item in islice(remaining, limit - len(pending)))
            except RuntimeError as error:  # it was shut down, or is broken; what it has done is not lost
                broken, remaining = error, iter(())
            if not pending and broken is not None:
                raise BrokenExecutor(str(broken)) from broken
            if not pending:
                return
            done, _ = wait(pending, timeout=_LOOK, return_when=FIRST_COMPLETED)
            check()
            for future in sorted(done, key=_has_failed):
                yield pending.pop(future), future
    finally:
        if pending:
            cancel()
            wait([future for future in pending if not future.cancel()], timeout=_PATIENCE)


def _has_failed(future: Future[Result]) -> bool:
    return future.cancelled() or future.exception() is not None
