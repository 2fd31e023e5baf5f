"""How long work reports its progress."""

from collections.abc import Callable

Advance = Callable[[int], None]
"""Called with the number of bytes done since the last call."""

Report = Callable[[int, int], None]
"""Called with the numbers of bytes done and of files finished since the last call."""

Progress = Callable[[str, int, int], Report]
"""Called with the name of a task, its size in bytes and its number of files when it begins."""


def nothing(_done: int) -> None:
    """The steps of work that nobody watches."""


def silent(_task: str, _total: int, _files: int) -> Report:
    """The progress of a library call: none is shown."""
    return lambda _done, _finished: None


def stoppable(progress: Progress, check: Callable[[], None]) -> Progress:
    """``progress`` whose every step is stopped by what ``check`` raises."""

    def begin(task: str, total: int, files: int) -> Report:
        report = progress(task, total, files)

        def step(done: int, finished: int) -> None:
            check()
            report(done, finished)

        return step

    return begin
