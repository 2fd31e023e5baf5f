"""Report progress in lines, now and then: for logs, where no terminal shows a bar."""

from collections.abc import Callable

from internvl_bridge.reporting.sizes import human_size
from internvl_bridge.work.progress import Progress, Report

_EVERY = 30.0
"""Seconds between two lines."""


def progress_lines(say: Callable[[str], None], clock: Callable[[], float]) -> Progress:
    """A progress that calls ``say`` with a line every half a minute; ``clock`` gives seconds.

    A line says how many files and bytes are done, and of how many. It also says how fast this goes, and how long the
    rest will take.
    """

    def begin(task: str, total: int, files: int) -> Report:
        start = last = clock()
        done = finished = 0

        def report(count: int, closed: int) -> None:
            nonlocal done, finished, last
            done += count
            finished += closed
            now = clock()
            if now - last >= _EVERY:
                last = now
                speed = done / (now - start)
                rest = f", {_duration((total - done) / speed)} left" if speed else ""
                share = f"{human_size(done)} of {human_size(total)} ({done / total:.0%})"
                say(f"{task}: {files_text(finished, files)}, {share}, {human_size(int(speed))}/s{rest}")

        return report

    return begin


def files_text(finished: int, files: int) -> str:
    """Which of ``files`` is worked at when so many are ``finished``."""
    return f"file {min(finished + 1, files)} of {files}"


def _duration(seconds: float) -> str:
    """A time for people, in seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
