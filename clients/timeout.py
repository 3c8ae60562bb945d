"""A limit on how long a piece of Python may take, in this thread."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from learngene.errors import Interruption

AGAIN_S = 5.0  # raised anew after this, should a library have swallowed it
SOON_S = 1e-3  # setitimer takes 0 for "never"


class Overdue(Interruption):
    """The time is over."""


@contextmanager
def time_limit(seconds: float | None, error: Overdue) -> Iterator[None]:
    """Raise ``error`` in the frame that runs when ``seconds`` are over; None is no limit.

    Limits may be nested: the one that ends first counts. It is an alarm signal, so it holds in the
    main thread alone (Ray's workers and the serial runtime run clients there) and not on Windows;
    elsewhere there is no limit. Python sees signals between two of its own instructions: a call
    into native code that never returns cannot be cut short.
    """
    mine = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    outer = signal.getitimer(signal.ITIMER_REAL)[0] if mine else 0.0
    if seconds is None or not mine or 0 < outer <= seconds:
        yield
        return
    started, over = time.monotonic(), False

    def strike(number: int, frame: object) -> None:
        if not over:
            raise error

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, SOON_S), AGAIN_S)
    try:
        try:
            yield
        finally:
            over = True
    finally:  # twice: the alarm may strike in the inner one
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
        if outer:
            left = outer - (time.monotonic() - started)
            signal.setitimer(signal.ITIMER_REAL, max(left, SOON_S), AGAIN_S)
