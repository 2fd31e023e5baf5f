"""Several at a time give the results of one after the other, and all stop when one fails."""

import os
import signal
import threading
from collections.abc import Iterator
from threading import Barrier, Event, Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from internvl_bridge.errors import OptionError
from internvl_bridge.work import workers as concurrency
from internvl_bridge.work.progress import Advance, silent
from internvl_bridge.work.workers import check_workers, in_parallel

PATIENCE = 20
"""Seconds after which a thread that is waited for has failed."""


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def awaited(event: Event) -> None:
    assert event.wait(PATIENCE), "nobody came"


UNSEEN = silent("", 0, 0)


def until_stopped(advance: Advance) -> None:
    """Work that ends only when it is stopped; a lot of it, but not for ever."""
    tick = Event()
    for _ in range(PATIENCE * 1000):
        tick.wait(0.001)
        advance(0)
    pytest.fail("nobody stopped this")


@given(st.lists(st.integers(), max_size=12), st.integers(1, 5))
def test_results_are_in_the_order_of_the_items(items, workers):
    steps: list[tuple[int, int]] = []

    def work(item: int, advance: Advance) -> int:
        advance(item)
        return item * 2

    assert in_parallel(work, items, workers, lambda *step: steps.append(step)) == [item * 2 for item in items]
    assert sorted(steps) == sorted([*((item, 0) for item in items), *[(0, 1)] * len(items)])


@pytest.mark.parametrize("workers", [2, 3, 4])
def test_so_many_work_at_a_time(workers):
    together = Barrier(workers)

    def work(_item: int, _advance: Advance) -> int:
        return together.wait(PATIENCE) >= 0

    assert in_parallel(work, range(3 * workers), workers, UNSEEN) == [True] * 3 * workers


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_no_more_work_at_a_time(workers):
    lock, now, most = Lock(), [0], [0]

    def work(_item: int, advance: Advance) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        for _ in range(10):
            advance(1)
        with lock:
            now[0] -= 1

    in_parallel(work, range(20), workers, UNSEEN)
    assert 1 <= most[0] <= workers


def test_results_are_in_order_even_if_the_first_is_the_last_to_finish():
    finished = Event()

    def work(item: int, _advance: Advance) -> int:
        if item == 0:
            awaited(finished)
        elif item == 3:
            finished.set()
        return item

    assert in_parallel(work, range(4), 2, UNSEEN) == [0, 1, 2, 3]


def test_the_progress_is_told_by_one_at_a_time():
    inside, entered = Lock(), [0]

    def advance(_done: int, _finished: int) -> None:
        assert inside.acquire(blocking=False), "two at a time"
        entered[0] += 1
        Event().wait(0.0001)  # lets the other threads run
        inside.release()

    def work(_item: int, step: Advance) -> None:
        for _ in range(25):
            step(1)

    in_parallel(work, range(4), 4, advance)
    assert entered[0] == 100 + 4  # the steps, and the ends


# Failures


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("error", [ValueError, OSError, SystemExit, KeyboardInterrupt])
def test_an_error_is_raised_as_it_is(workers, error):
    wrong = error("this one")

    def work(item: int, _advance: Advance) -> None:
        if item == 2:
            raise wrong

    with pytest.raises(error, match="this one") as caught:
        in_parallel(work, range(6), workers, UNSEEN)
    assert caught.value is wrong


def test_others_stop_as_soon_as_one_has_failed_and_no_more_begin():
    working = Event()
    begun: list[int] = []

    def work(item: int, advance: Advance) -> None:
        begun.append(item)
        if item == 0:
            working.set()
            until_stopped(advance)
        awaited(working)
        raise ValueError(item)

    with pytest.raises(ValueError, match=r"^1$"):
        in_parallel(work, range(50), 2, UNSEEN)
    assert len(begun) < 50


def test_of_several_errors_that_of_the_first_item_is_raised():
    """Even if it comes later: what is reported does not depend on the weather."""
    second = Event()

    def work(item: int, advance: Advance) -> None:
        if item == 1:
            second.set()
            raise ValueError(item)
        awaited(second)
        try:
            until_stopped(advance)
        finally:
            raise OSError(item)

    with pytest.raises(OSError, match=r"^0$"):
        in_parallel(work, range(2), 2, UNSEEN)


def test_work_that_had_finished_does_not_hide_an_error():
    def work(item: int, _advance: Advance) -> int:
        if item == 5:
            raise ValueError(item)
        return item

    with pytest.raises(ValueError, match=r"^5$"):
        in_parallel(work, range(6), 1, UNSEEN)


def test_an_error_of_the_progress_stops_all():
    def advance(_done: int, _finished: int) -> None:
        raise ValueError("no terminal")

    with pytest.raises(ValueError, match="no terminal"):
        in_parallel(lambda _item, step: until_stopped(step), range(4), 2, advance)


def test_after_a_failure_the_progress_is_not_told_any_more():
    failed, told = Event(), []

    def work(item: int, advance: Advance) -> None:
        if item:
            failed.set()
            raise ValueError(item)
        awaited(failed)
        until_stopped(advance)

    with pytest.raises(ValueError, match="1"):
        in_parallel(work, range(2), 2, lambda *step: told.append(step))
    count = len(told)
    assert told == [0] * count


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [1, 3])
def test_an_interrupt_of_the_user_stops_all(workers, number):
    stopped = list[int]()

    def work(item: int, advance: Advance) -> None:
        if item == 0:
            for _ in range(number):  # however impatient
                signal.pthread_kill(main, signal.SIGINT)
        try:
            until_stopped(advance)
        finally:
            stopped.append(item)

    main = threading.main_thread().ident
    with pytest.raises(KeyboardInterrupt):
        in_parallel(work, range(20), workers, UNSEEN)
    assert 0 in stopped
    assert len(stopped) < 20  # one may begin before it is told, and stops at its first step
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_work_that_ended_before_it_heard_of_an_interrupt_does_not_hide_it():
    main = threading.main_thread().ident
    with pytest.raises(KeyboardInterrupt):
        in_parallel(lambda _item, _step: signal.pthread_kill(main, signal.SIGINT), [0], 1, UNSEEN)


def test_nothing_to_do_is_done():
    assert in_parallel(lambda item, _: item, [], 4, UNSEEN) == []


# How many


@pytest.mark.parametrize(("processors", "workers"), [(None, 1), (1, 1), (2, 2), (4, 4), (64, 4)])
def test_a_machine_has_use_for_a_few_workers(monkeypatch, processors, workers):
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert check_workers(None) == workers
    assert concurrency._MOST_WORKERS == 4


@pytest.mark.parametrize("workers", [1, 256])
def test_a_number_of_workers_may_be_as_small_or_large_as_this(workers: int) -> None:
    assert check_workers(workers) == workers


@pytest.mark.parametrize("workers", [-1, 0, 257])
def test_other_numbers_of_workers_are_refused(workers: int) -> None:
    with pytest.raises(OptionError, match="Use 1 to 256"):
        check_workers(workers)
