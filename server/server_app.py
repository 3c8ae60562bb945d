"""The factory's Flower app: run the strategy, pass replies on as they arrive, keep the error.

``app`` is what ``flwr run`` starts (``[tool.flwr.app]`` in pyproject.toml): a whole run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from flwr.app import ArrayRecord, Context, Message, MessageType
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result

from protocol.callbacks import SILENT, RunCallback
from protocol.grid import WrappedGrid
from protocol.rounds import ClientOutcome

POLL_S = 0.05  # between two looks for replies
TTL_MARGIN_S = 600.0  # a message outlives the deadline for its reply by this


class Stopped(RuntimeError):
    """The runtime has ended under the ServerApp; there is nobody left to wait for."""


class ObservingStrategy(Protocol):
    """A Flower strategy that can be shown replies one by one (server/ knows no more of it)."""

    def start(
        self, grid: Grid, initial_arrays: ArrayRecord, num_rounds: int, timeout: float
    ) -> Result: ...
    def pushed(self, message: Message) -> None: ...
    def receive(self, reply: Message) -> ClientOutcome | None: ...
    def guarded(self, grid: Grid) -> Grid: ...


class LearngeneServerApp(ServerApp):
    """A ServerApp that its runtime can stop, and that keeps its error instead of losing it."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()  # set by the runtime: give up waiting
        self.started = threading.Event()  # set by the app: main is running
        self.finished = threading.Event()  # set by the app: main has returned
        self.late: set[str] = set()  # messages whose deadline is past: nobody asks for them now
        self.error: Exception | None = None
        self.on_finish: Callable[[], None] = lambda: None  # called in the app's thread


def make_server_app(
    strategy: ObservingStrategy,
    rounds: int,
    timeout_s: float,
    callback: RunCallback = SILENT,
    *,
    in_flight: int | None = None,
    poll_s: float = POLL_S,
) -> LearngeneServerApp:
    """A ServerApp that runs ``strategy`` for some rounds.

    Args:
        strategy: see ``strategies.learngene.LearngeneStrategy``.
        rounds: messages that each client is sent.
        timeout_s: deadline of a round, seconds.
        callback: its ``on_reply`` is called in the ServerApp's thread.
        in_flight: messages with work that are out at once; None = all.
        poll_s: seconds between two looks for replies.
    """
    app = LearngeneServerApp()

    def observe(reply: Message) -> None:
        outcome = strategy.receive(reply)
        if outcome is not None:
            callback.on_reply(outcome.client, outcome.error is None)

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        app.started.set()
        try:
            # The guard sees all messages of a round before the first of them goes.
            watched = WatchedGrid(
                grid, app.stop, observe, in_flight, poll_s, strategy.pushed, app.late
            )
            guarded = strategy.guarded(watched)
            strategy.start(guarded, ArrayRecord(), num_rounds=rounds, timeout=timeout_s)
        except Exception as error:  # run_simulation would end with exit code 0
            app.error = error
        finally:
            app.finished.set()
            app.on_finish()

    return app


class WatchedGrid(WrappedGrid):
    """A Grid that shows every message as it goes and every reply as it arrives, and that can be
    told to stop waiting.

    Flower's own ``send_and_receive`` is silent until the last reply, and nothing ends it before
    its timeout, also when the backend has died in the meantime.
    """

    def __init__(
        self,
        grid: Grid,
        stop: threading.Event,
        on_message: Callable[[Message], None],
        in_flight: int | None = None,
        poll_s: float = POLL_S,
        on_push: Callable[[Message], None] = lambda message: None,
        late: set[str] | None = None,
    ) -> None:
        super().__init__(grid)
        self._stop, self._on_message, self._in_flight = stop, on_message, in_flight
        self._poll_s, self._on_push = poll_s, on_push
        self._late: set[str] = set() if late is None else late

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Replies in the order of arrival; those that miss the deadline are left out, and ``late``
        has the ids of their messages.

        No more than ``in_flight`` messages are out at once, questions which client a node is not
        counted: those are no work. The deadline is that of them all.

        Raises:
            Stopped: the runtime has ended.
        """
        due = deque(messages)
        deadline = None if timeout is None else time.monotonic() + timeout
        if timeout is not None:
            for message in due:  # the default is 12 h; Flower forgets expired messages
                message.metadata.ttl = max(message.metadata.ttl, timeout + TTL_MARGIN_S)
        work = any(each.metadata.message_type == MessageType.TRAIN for each in due)
        most = self._in_flight if work and self._in_flight is not None else len(due)
        waiting: set[str] = set()
        replies: list[Message] = []
        while due or waiting:
            room = min(most - len(waiting), len(due))
            if now := [due.popleft() for _ in range(room)]:
                # None, where Flower has no such node any more: nobody answers that one.
                waiting |= {each for each in self.push_messages(now) if each}
                for message in now:
                    if message.metadata.message_id in waiting:
                        self._on_push(message)
                del message
            del now
            arrived = list(self.pull_messages(waiting))
            for reply in arrived:
                self._on_message(reply)
            replies.extend(arrived)
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            if deadline is not None and time.monotonic() >= deadline:
                self._late |= waiting
                break
            if not arrived and self._stop.wait(self._poll_s):
                break
        if (due or waiting) and self._stop.is_set():
            raise Stopped(f"the runtime ended while {len(due) + len(waiting)} replies were due")
        return replies

    def get_node_ids(self) -> Iterable[int]:
        if self._stop.is_set():
            raise Stopped("the runtime ended before the nodes were there")
        return super().get_node_ids()


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """A whole run over the nodes of ``grid``.

    Raises:
        Exception: it did not end well. Flower knows no other sign of it.
    """
    # The one import upward (docs/ARCHITECTURE.md): Flower looks for the app here, and a run's
    # phases lie above.
    from flower_run import run

    run(grid, context)
