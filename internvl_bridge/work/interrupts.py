"""Let an interrupt of the user in where it leaves things in order, and nowhere else."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def interrupts_held() -> Iterator[Callable[[], None]]:
    """Raise no KeyboardInterrupt between any two instructions; yield what raises it where it is called.

    That may be called in any thread. An interrupt that it did not report is raised at the end of the ``with``. Only
    signals whose handler is Python's own (:func:`signal.default_int_handler`) are held back: what another handler
    does is not ours to put off. So of two nested ``with``, it is the outer one that hears them.
    """
    is_heard = False

    def remember(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_heard
        is_heard = True

    def check() -> None:
        if is_heard:
            raise KeyboardInterrupt

    held = [number for number in _SIGNALS if signal.getsignal(number) is signal.default_int_handler]
    if threading.current_thread() is not threading.main_thread():
        held = []  # no other thread is interrupted by a signal, or may set a handler
    try:
        _set(held, remember)
        yield check
    finally:
        while True:
            try:
                _set(held, signal.default_int_handler)
            except KeyboardInterrupt:  # the handlers of the others have yet to be put back
                remember(signal.SIGINT, None)
                continue
            break
    check()


def _set(numbers: Sequence[int], handler: Callable[[int, FrameType | None], object]) -> None:
    for number in numbers:
        signal.signal(number, handler)
