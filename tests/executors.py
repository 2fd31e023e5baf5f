"""An executor without threads, for tests of what is read ahead."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self


class AtOnce:
    """An executor that does everything as early as it may: what is read ahead is read before anything is compared."""

    def __init__(self, _workers: int) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:  # noqa: BLE001 (as a real one does)
            future.set_exception(error)
        return future
