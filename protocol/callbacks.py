"""Watch a run: one base class for the terminal, for loggers and for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from learngene.collective.trainer import CollectiveTrainer


class RunCallback:
    """Is told what happens, in the order in which it happens; here every method does nothing.

    Subclasses override what they want to hear of. They must not change what they are given: a
    callback changes no result. With Ray ``on_reply`` and ``on_round_end``, and ``on_note`` while
    rounds run, are called in the ServerApp's thread, all others in the driver's.
    """

    def on_note(self, text: str) -> None:
        """A line for the reader: something was decided, restored or left out."""

    def on_progress(self, what: str, done: int = 0, total: int | None = None) -> None:
        """What is under way within a stage, and how much of it is done where that is known."""

    def on_step(self, done: int, steps: int, loss: float) -> None:
        """Steps done within a task of the collective, and the mean loss so far."""

    def on_task_end(self, trainer: CollectiveTrainer, restored: bool) -> None:
        """The collective has learned a task, or all up to it were ``restored`` from the cache."""

    def on_cycle_end(self, record: Mapping[str, Any], restored: bool) -> None:
        """An open-world cycle is over; ``record`` as in ``results.json``."""

    def on_method_step(self, method: str, done: int, steps: int) -> None:
        """Steps done of a method's half at the factory."""

    def on_round_end(self, method: str, done: int, rounds: int) -> None:
        """A round of a federated training is over."""

    def on_clients_begin(self, due: int) -> None:
        """So many answers are due; those of an earlier run are not counted."""

    def on_reply(self, client: int, ok: bool) -> None:
        """A client has answered; ``ok``: with all that was asked for."""

    def on_run_end(self, results: Mapping[str, Any]) -> None:
        """The content of ``results.json``."""


SILENT = RunCallback()  # hears of everything and does nothing


class CallbackList(RunCallback):
    """Several callbacks as one; each is told in the order of the list."""

    def __init__(self, callbacks: Sequence[RunCallback]) -> None:
        self._callbacks = list(callbacks)
        for name in vars(RunCallback):
            if name.startswith("on_"):
                setattr(self, name, partial(self._tell, name))

    def _tell(self, name: str, *values: Any) -> None:
        for callback in self._callbacks:
            getattr(callback, name)(*values)
