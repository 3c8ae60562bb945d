"""Clients that train together in one process: their trainings collected, run as one, handed out.

A client's work is done twice by the same code (``clients.work.run_task``). The first time, inside
``Cohort.collecting``, a method stops before its first epoch and its training is put aside. The
second time, inside ``Cohort.answering``, it is given the outcome of that training, or raises what
went wrong before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import replace

from learngene.adaptation.together import bytes_of, form_of, train_together
from learngene.adaptation.training import Outcome, Training, after_each_epoch, replay_epochs
from learngene.methods import ClientContext, Method, find
from learngene.utils.hardware import free_memory
from protocol.task import ClientTask

SHARE_OF_MEMORY = 0.5  # of what is free when a cohort begins; the estimate is rough


def trained_together(task: ClientTask) -> tuple[str, ...]:
    """The task's methods whose clients are trained together; the others adapt one by one.

    An individual that is kept, or that the safeguard watches, is trained by itself.
    """
    if task.federated is not None:
        return ()
    found = {name: find(name, task.own_methods.get(name)) for name in task.methods}
    return tuple(
        name
        for name, method in found.items()
        if method.prepare is not None
        and not (method.inherits and (task.individual.safeguard or task.keep))
    )


class Cohort:
    """Some clients of a round. Their number is up to the caller, who asks ``is_full``."""

    def __init__(self) -> None:
        self._trainings: dict[tuple[int, str], tuple[Training, float]] = {}  # and its seconds
        self._outcomes: dict[tuple[int, str], Outcome | Exception] = {}
        self._room: float | None = None  # bytes, as it was before the first training
        self._bytes = self._largest = 0

    def collecting(self) -> AbstractContextManager[None]:
        """Put trainings aside."""
        return _opened(self._collect)

    def answering(self) -> AbstractContextManager[None]:
        """Hand outcomes out."""
        return _opened(self._outcome)

    @property
    def is_full(self) -> bool:
        """Whether one client more might not find memory."""
        return self._room is not None and self._bytes + self._largest > self._room

    def _collect(self, name: str, method: Method, context: ClientContext) -> Outcome:
        if self._room is None:
            self._room = SHARE_OF_MEMORY * free_memory(context.device)
        assert method.prepare is not None
        started, key = time.perf_counter(), (context.client, name)
        try:
            training = method.prepare(context)
        except Exception as error:
            self._outcomes[key] = error
            raise
        self._trainings[key] = training, time.perf_counter() - started
        taken = bytes_of(training)
        self._bytes, self._largest = self._bytes + taken, max(self._largest, taken)
        return Outcome()

    def _outcome(self, name: str, method: Method, context: ClientContext) -> Outcome | None:
        found = self._outcomes.get((context.client, name))
        if isinstance(found, Exception):
            raise found
        if found is not None:
            replay_epochs(context.individual.epochs)
        return found

    def train(self, progress: Callable[[str, int, int], None]) -> None:
        """Run what was collected, trainings of one form together; alone what is of no other's.

        Args:
            progress: told what is trained, how many epochs of it are over, and how many there are.
        """
        groups: dict[str, list[tuple[int, str]]] = {}
        for key, (training, _) in self._trainings.items():
            groups.setdefault(f"{key[1]} {form_of(training)}", []).append(key)
        for keys in groups.values():
            trainings, seconds = zip(*(self._trainings.pop(key) for key in keys), strict=True)
            what = f"clients, {len(keys)} of {keys[0][1]} together"
            epochs = trainings[0].settings.epochs
            try:
                with after_each_epoch(lambda done, what=what, of=epochs: progress(what, done, of)):  # type: ignore[misc]
                    one = len(trainings) == 1
                    outcomes = [trainings[0].run()] if one else train_together(trainings)
            except Exception as error:  # no memory, for one: each of them is told
                self._outcomes |= dict.fromkeys(keys, error)
                continue
            for key, outcome, before in zip(keys, outcomes, seconds, strict=True):
                self._outcomes[key] = replace(outcome, seconds=outcome.seconds + before)


Answer = Callable[[str, Method, ClientContext], Outcome | None]
_open: ContextVar[Answer] = ContextVar("cohort", default=lambda name, method, context: None)


@contextmanager
def _opened(answer: Answer) -> Iterator[None]:
    token = _open.set(answer)
    try:
        yield
    finally:
        _open.reset(token)


def from_cohort(name: str, method: Method, context: ClientContext) -> Outcome | None:
    """What the open cohort has for this client and method; None: it adapts by itself."""
    return _open.get()(name, method, context)
