"""Factory halves side by side, each in a process of its own with ``collective.threads`` threads.

Threads wait for each other in every operation, trainings do not. Each process keeps its payload in
the cache, as ever, and says only that it is done; numbers do not depend on how many run at once.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from learngene.methods.isolation import in_words
from learngene.utils.hardware import keep_freed_memory, usable_cores

TELL_S = 0.2  # a process says how far it is at most so often, seconds

ProgressFn = Callable[[int, int], None]  # steps done, steps in all
Work = Callable[..., None]  # the last argument is a ``Tell``


@dataclass(frozen=True)
class JobResult:
    """How one piece of work ended."""

    name: str
    seconds: float
    error: str | None  # None: it was done


def max_workers(threads: int, device: torch.device) -> int:
    """How many trainings this machine has room for at once: cores over ``threads``, one on a GPU.

    Args:
        threads: ``collective.threads``; 0 gives all cores to one training.
    """
    if threads == 0 or device.type != "cpu":
        return 1
    return max(1, usable_cores() // threads)


def run_parallel(
    work: Work,
    asked: Mapping[str, tuple[Any, ...]],
    at_once: int,
    on_step: Callable[[str, int, int], None] = lambda name, done, steps: None,
    over: Callable[[], bool] = lambda: False,
) -> Generator[JobResult, None, None]:
    """``work(*arguments, tell)`` for each of ``asked``, ``at_once`` processes at a time.

    Yields as they end, in whatever order. When the caller stops (Ctrl-C, too), those that still
    run are ended; what they kept of half-done work stays.

    Args:
        work: a function of a module, which a new process can import.
        over: asked several times a second; True ends those that run, as a caller's stop does.
    """
    context = get_context("spawn")  # a fork of a process with torch's threads may hang
    left = list(asked)
    running: dict[Connection, tuple[str, Any, float]] = {}
    try:
        while (left or running) and not over():
            while left and len(running) < at_once:
                name = left.pop(0)
                here, there = context.Pipe(duplex=False)
                process = context.Process(
                    target=_child, args=(work, asked[name], there), name=name, daemon=True
                )
                process.start()
                there.close()  # the child's end is the only one: when it dies, we read the end
                running[here] = name, process, time.perf_counter()
            for ready in wait(list(running), TELL_S):
                assert isinstance(ready, Connection)
                name, process, started = running[ready]
                try:
                    said = ready.recv()
                except EOFError:  # it said neither that it is done nor why not
                    process.join()
                    said = ("error", f"its process ended with exit code {process.exitcode}")
                if said[0] == "step":
                    on_step(name, *said[1:])
                    continue
                del running[ready]
                process.join()
                ready.close()
                yield JobResult(name, time.perf_counter() - started, said[1])
    finally:
        for connection, (_, process, _) in running.items():
            process.terminate()
            process.join()
            connection.close()


def _child(work: Work, arguments: tuple[Any, ...], told: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer; it ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()
    last = 0.0

    def tell(done: int, steps: int) -> None:  # raises when the parent is gone, which ends us, too
        nonlocal last
        if (now := time.monotonic()) - last >= TELL_S:
            last = now
            told.send(("step", done, steps))

    try:
        work(*arguments, tell)
    except BrokenPipeError:
        return
    except Exception as error:
        with suppress(BrokenPipeError):
            told.send(("error", in_words(error)))
        return
    told.send(("done", None))
