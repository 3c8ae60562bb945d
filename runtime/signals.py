"""Ctrl-C and SIGTERM: one way out for both, in seconds, with the exit codes that shells expect."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

from learngene.errors import RunError

# For what is being written, for Ray and for the terminal to be left in order. Then the process ends
# all the same: Python may have lost the exception (in a callback of a C library), or be in a call
# that does not come back. Files are written whole or not at all, and Ray's processes end with ours.
GRACE_S = 8.0
ENDING = (signal.SIGINT, signal.SIGTERM)
KEPT = "what was finished is kept, the same command goes on"
MESSAGE = f"interrupted; {KEPT}"


class Terminated(KeyboardInterrupt):
    """SIGTERM. A KeyboardInterrupt: whatever lets Ctrl-C through must let this through, too."""


class BackendLost(RunError):
    """What runs the clients could not start, or died under the run."""


def exit_code(signum: int) -> int:
    """130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + signum


def catch_signals(program: str = "sim.py") -> None:
    """From now on both signals end the run; once is enough, more are ignored.

    A signal that the process was started to ignore (a shell's background job) stays ignored. Only
    the main thread may call this, once.
    """
    waiting, told = os.pipe()
    os.set_blocking(told, False)
    for signum in ENDING:
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _leave)
    signal.set_wakeup_fd(told)  # written to also while Python is not running
    threading.Thread(target=_watch, args=(waiting, program), name="signals", daemon=True).start()


def _leave(signum: int, frame: FrameType | None) -> None:
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise Terminated if signum == signal.SIGTERM else KeyboardInterrupt


def _watch(waiting: int, program: str) -> None:
    while (signum := os.read(waiting, 1)[0]) not in ENDING:
        continue
    time.sleep(GRACE_S)
    with suppress(Exception):  # whoever read the terminal may be gone
        print(f"{program}: {MESSAGE}", file=sys.stderr, flush=True)
    os._exit(exit_code(signum))
