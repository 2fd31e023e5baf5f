"""How long work reports its progress."""

from collections.abc import Callable

Advance = Callable[[int], None]
"""Called with the number of bytes done since the last call."""

Progress = Callable[[str, int], Advance]
"""Called with the name of a task and its size in bytes when it begins."""


def nothing(_done: int) -> None:
    """The steps of work that nobody watches."""


def silent(_task: str, _total: int) -> Advance:
    """The progress of a library call: none is shown."""
    return nothing


def stoppable(progress: Progress, check: Callable[[], None]) -> Progress:
    """``progress`` whose every step is stopped by what ``check`` raises."""

    def begin(task: str, total: int) -> Advance:
        advance = progress(task, total)

        def step(done: int) -> None:
            check()
            advance(done)

        return step

    return begin
