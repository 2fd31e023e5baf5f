"""How long work reports its progress."""

from collections.abc import Callable
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of bytes done since the last call."""


class Report(Protocol):
    """What a :class:`Progress` returns: it is called while a task goes on, from several threads, one at a time."""

    def __call__(self, done: int, finished: int, /) -> None:
        """Take note that so many bytes are ``done`` and so many files ``finished`` since the last call."""


class Progress(Protocol):
    """What a caller gives to see how far long work has come.

    It is called when a task begins, with its name, its size in bytes and its number of files. What it returns is called
    while the task goes on, with the bytes done and the files finished since the last call. That may raise: then the
    work stops as after Ctrl-C, with nothing half done.

    Example:
        >>> def progress(task, total, files):
        ...     done = 0
        ...     def report(more, _finished):
        ...         nonlocal done
        ...         done += more
        ...     print(task)
        ...     return report
        >>> import internvl_bridge
        >>> internvl_bridge.verify("InternVL3_5-8B", "my-finetune-HF", progress=progress).identical
        Comparing
        True
    """

    def __call__(self, task: str, total: int, files: int, /) -> Report:
        """Begin ``task``, of ``total`` bytes in so many ``files``."""


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
