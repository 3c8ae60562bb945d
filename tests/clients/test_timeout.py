"""Limits of time: in the main thread, nested, and gone afterwards."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from clients.timeout import Overdue, time_limit


def forever() -> None:
    try:
        while True:
            time.sleep(1)
    except Exception:  # what a method that catches everything would do
        forever()


def test_it_ends_what_never_ends_and_leaves_no_alarm():
    over = Overdue()
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(Overdue) as caught, time_limit(0.05, over):
        forever()
    assert caught.value is over
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert signal.getsignal(signal.SIGALRM) == before


def test_what_ends_in_time_is_left_alone():
    with time_limit(60, Overdue()), time_limit(None, Overdue()):
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(("outer", "inner", "first"), [(0.05, 60, "outer"), (60, 0.05, "inner")])
def test_of_nested_limits_the_first_to_end_counts(outer, inner, first):
    limits = {"outer": Overdue(), "inner": Overdue()}
    with (
        pytest.raises(Overdue) as caught,
        time_limit(outer, limits["outer"]),
        time_limit(inner, limits["inner"]),
    ):
        forever()
    assert caught.value is limits[first]


def test_the_outer_limit_goes_on_after_the_inner_one():
    over = Overdue()
    with pytest.raises(Overdue) as caught, time_limit(0.2, over):
        with time_limit(0.1, Overdue()):
            pass
        forever()
    assert caught.value is over


def test_in_another_thread_there_is_no_limit():
    done = []

    def work() -> None:
        with time_limit(1e-9, Overdue()):
            done.append(signal.getitimer(signal.ITIMER_REAL)[0])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [0.0]
