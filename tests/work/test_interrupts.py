"""Interrupts are heard where they are asked for, or at the end, and nowhere else."""

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from internvl_bridge.work.interrupts import interrupts_held
from internvl_bridge.work.progress import stoppable

NUMBERS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def _as_on_the_command_line() -> Iterator[None]:
    before = [signal.signal(number, signal.default_int_handler) for number in NUMBERS]
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in NUMBERS]


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupt_is_heard_where_it_is_asked_for(number):
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts_held() as check:  # noqa: PT012
        check()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        reached.append("behind the signals")
        check()
        reached.append("behind the check")
    assert reached == ["behind the signals"]
    assert handlers() == [signal.default_int_handler] * 3


@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupt_that_nobody_asked_for_is_raised_at_the_end(number):
    reached = []
    with pytest.raises(KeyboardInterrupt), interrupts_held():  # noqa: PT012
        os.kill(os.getpid(), number)
        reached.append("the end")
    assert reached == ["the end"]
    assert handlers() == [signal.default_int_handler] * 3


def test_an_interrupt_while_the_handlers_are_put_back_is_raised_when_all_are(monkeypatch: pytest.MonkeyPatch):
    put_back = []
    set_handler = signal.signal

    def interrupted(number, handler):
        set_handler(number, handler)
        put_back.append(number)
        if len(put_back) == 1:
            os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt), interrupts_held():
        monkeypatch.setattr(signal, "signal", interrupted)
    assert set(put_back) == set(NUMBERS)
    assert handlers() == [signal.default_int_handler] * 3


def test_an_error_is_not_hidden_by_an_interrupt():
    with pytest.raises(ValueError, match="this"), interrupts_held():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("this")
    assert handlers() == [signal.default_int_handler] * 3


def test_after_the_end_an_interrupt_is_heard_at_once():
    with interrupts_held():
        pass
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_the_handler_of_somebody_else_stays():
    heard = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
    before = handlers()
    with interrupts_held() as check:
        os.kill(os.getpid(), signal.SIGTERM)
        assert heard == [signal.SIGTERM]
        assert handlers()[1] is before[1]
        check()
    assert handlers() == before


def test_within_another_the_outer_one_hears():
    with pytest.raises(KeyboardInterrupt), interrupts_held() as outer:  # noqa: PT012
        with interrupts_held() as inner:
            os.kill(os.getpid(), signal.SIGINT)
            inner()
        outer()
        pytest.fail("not heard")


def test_another_thread_leaves_the_handlers_alone():
    seen = []

    def run() -> None:
        with interrupts_held() as check:
            seen.append(handlers())
            check()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [[signal.default_int_handler] * 3]


def test_a_progress_is_stopped_at_its_next_step():
    told: list[object] = []
    reasons: list[Exception] = []

    def check() -> None:
        for reason in reasons:
            raise reason

    def begin(*task: object):
        told.append(task)
        return lambda *step: told.append(step)

    step = stoppable(begin, check)("Copying", 7, 2)
    step(3, 1)
    reasons.append(ValueError("stop"))
    with pytest.raises(ValueError, match="stop"):
        step(4, 0)
    assert told == [("Copying", 7, 2), (3, 1)]
