"""Ray's workers, as a pool that outlives any of them: what is lost is replaced and repeated.

Flower's own pool takes a dead worker for idle, and waits for one that is frozen or whose node is
gone. This one stands in its place. Nobody waits for a worker that is not up, and a client whose
worker is lost goes to the next that is free, on whichever node that is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from flwr.app import Context, Message, MessageType

from clients.client_app import be_ready, end_at_sigterm
from protocol.messages import WORKER_DIED, WORKER_STUCK
from runtime.resources import Resources
from runtime.serial_backend import TRIES
from runtime.signals import BackendLost

TICK_S = 1.0  # between two looks at what may have been lost
STARTS = 3  # of each worker where none is up before it dies
# All clients of a round do much the same work. One that takes SLOW times as long as its slowest so
# far, and STUCK_S more, is taken for frozen (stopped, swapped out, dead in a native call), once:
# repeated it has until the round's deadline, for the case that its node is only that much slower.
SLOW, STUCK_S = 3.0, 60.0
RAYS_OWN = ("raylet", "gcs_server")  # without these two nothing can be asked of Ray


class WorkerLost(RuntimeError):
    """A client could not be served; the text is what the run says of it."""


class WorkerPool:
    """What ``RayBackend`` calls of Flower's ``BasicActorPool``.

    Args:
        client_timeout_s: each client's own limit, seconds. Its worker's alarm holds it to that; one
            that says nothing for ``STUCK_S`` longer is stuck.
        on_lost: called once if Ray itself has died, in a thread of its own.
    """

    def __init__(self, client_timeout_s: float | None, on_lost: Callable[[], None]) -> None:
        self.num_actors = self.actors_capacity = 0
        self._create: Callable[[], Any]
        self.lost: BackendLost | None = None
        self._limit_s, self._on_lost = client_timeout_s, on_lost
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._all: list[Any] = []  # workers: coming, idle and busy
        self._idle: list[Any] = []
        self._coming: dict[Future[Any], Any] = {}  # resolved once the worker is up
        self._failed_starts = 0
        self.late: Set[str] = set()  # messages that nobody asks for any more
        self._slowest: dict[str, float] = {}  # by round: seconds of a client that has answered

    def open(self, resources: Resources, *, ready: bool) -> None:
        """Ray runs: start as many workers as fit, and no more than there are clients.

        Args:
            resources: as checked.
            ready: they import at once what their first client will need.
        """
        from flwr.server.superlink.fleet.vce.backend.raybackend import (
            BasicActorPool,
            ClientAppActor,
        )

        holds = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
        at_start = {"on_actor_init_fn": be_ready if ready else end_at_sigterm}
        # It knows what a worker is and how many fit.
        flowers = BasicActorPool(ClientAppActor, holds, at_start)
        self._create = flowers.create_actor_fn
        self.actors_capacity = int(min(flowers.actors_capacity, resources.clients))
        threading.Thread(target=self._watch_ray, name="ray's health", daemon=True).start()
        self.add_actors_to_pool(self.actors_capacity)

    def add_actors_to_pool(self, number: int) -> None:
        """Start those that are not there. (Flower asks, after ``open``.)"""
        with self._lock:
            for _ in range(number - self.num_actors):
                self._hire()
        self.num_actors = number

    def wait_for_all(self) -> None:
        """Come back when none of the workers is still coming."""
        with self._lock:
            coming = list(self._coming)
        wait(coming)

    def is_actor_available(self) -> bool:
        return bool(self._idle)

    def submit(self, run: Callable[..., Any], job: tuple[Any, ...]) -> tuple[Any, ...]:
        """Nothing yet: with workers that may be lost, asking one and hearing it are one step."""
        return run, *job

    def add_actor_back_to_pool(self, future: object) -> None:
        """Called after an error, when the worker is back or replaced."""

    def fetch_result_and_return_actor_to_pool(
        self, asked: tuple[Any, ...]
    ) -> tuple[Message, Context]:
        """The client's reply.

        Raises:
            WorkerLost: no worker came to the end of it, or its round was over before one was free.
            RayTaskError: the app itself raised.
        """
        from ray.exceptions import RayError, RayTaskError

        run, app, message, client, context = asked
        why = WORKER_DIED
        for attempt in range(TRIES):
            worker = self._take()
            if message.metadata.message_type == MessageType.QUERY:
                # Which client a node is stands in its context, here: no worker can fail to say it.
                # (One that is up is waited for, so that a round's time begins with one.)
                self._give_back(worker)
                return app()(message, context), context
            if message.metadata.message_id in self.late:  # else the next round would wait for it
                self._give_back(worker)
                raise WorkerLost("its round is over")
            try:
                answer = run(worker, app, message, client, context).future()
                reply = self._hear(answer, attempt, message.metadata.group_id)
            except RayTaskError:
                self._give_back(worker)
                raise
            except (RayError, TimeoutError) as error:
                why = WORKER_STUCK if isinstance(error, TimeoutError) else WORKER_DIED
                self._replace(worker)
            else:
                self._give_back(worker)
                return reply[1], reply[2]
        raise WorkerLost(why)

    def _hear(self, answer: Future[Any], attempt: int, round: str) -> Any:
        """What the worker answers in this round.

        Raises:
            TimeoutError: it is stuck.
        """
        begun, ticks = time.monotonic(), 0  # not the clock: a driver that stood has not waited
        while not wait([answer], TICK_S).done:
            if self._ended.is_set():
                raise WorkerLost("the run has ended")
            ticks += 1
            limits = [] if self._limit_s is None else [self._limit_s]
            if attempt == 0 and round in self._slowest:
                limits.append(SLOW * self._slowest[round])
            if limits and ticks * TICK_S > min(limits) + STUCK_S:
                raise TimeoutError
        reply = answer.result()
        self._slowest[round] = max(time.monotonic() - begun, self._slowest.get(round, 0.0))
        return reply

    def _take(self) -> Any:
        while True:
            with self._lock:
                self._admit()
                if self._idle:
                    return self._idle.pop()
                if not self._all:
                    raise WorkerLost("no worker can be started")
            if self._ended.wait(TICK_S / 20):
                raise WorkerLost("the run has ended")

    def _admit(self) -> None:
        """Those that are up are idle; those that died before it come anew."""
        for up in [each for each in self._coming if each.done()]:
            worker = self._coming.pop(up)
            if up.exception() is None:
                self._idle.append(worker)
                self._failed_starts = 0
                continue
            self._all.remove(worker)
            self._failed_starts += 1
            if self._failed_starts < STARTS * self.num_actors:
                self._hire()

    def _hire(self) -> None:
        worker = self._create()
        self._all.append(worker)
        self._coming[worker.__ray_ready__.remote().future()] = worker

    def _give_back(self, worker: Any) -> None:
        with self._lock:
            self._idle.append(worker)

    def _replace(self, worker: Any) -> None:
        import ray

        with self._lock:
            if self._ended.is_set():
                return
            self._all.remove(worker)
            ray.kill(worker, no_restart=True)
            self._hire()

    def end(self) -> None:
        """End all workers, busy ones included; who waits for one is told so. Once is enough."""
        import ray

        self._ended.set()
        with self._lock:  # the ServerApp's thread and the backend's may come at once
            while self._all and self.lost is None and ray.is_initialized():
                ray.kill(self._all.pop(), no_restart=True)

    def terminate_all_actors(self) -> None:
        """The backend's last call before ``ray.shutdown``, which would wait for a Ray that died."""
        self.end()
        if self.lost is not None:
            raise self.lost

    def _watch_ray(self) -> None:
        """Ray's own way to say that it died is to end the driver, with a page of C++."""
        import ray._private.worker as ray_worker

        node: Any = ray_worker._global_node  # of a cluster that was there it has no processes
        while node is not None and not self._ended.wait(TICK_S):
            dead = {name for name, _ in node.dead_processes()} & set(RAYS_OWN)
            if dead and not self._ended.is_set():
                self.lost = BackendLost(f"Ray's {' and '.join(sorted(dead))} died")
                self._ended.set()
                self._on_lost()


@contextmanager
def lasting_workers(pool: WorkerPool) -> Iterator[None]:
    """This pool in place of Flower's, and a thread for each of its workers: Flower has 32 at most
    (flwr is pinned; tests hold it to work)."""
    from flwr.server.superlink.fleet.vce import vce_api
    from flwr.server.superlink.fleet.vce.backend import raybackend

    originals = raybackend.BasicActorPool, vce_api.ThreadPoolExecutor
    raybackend.BasicActorPool = lambda **asked: pool  # type: ignore[misc, assignment]
    vce_api.ThreadPoolExecutor = lambda: ThreadPoolExecutor(pool.actors_capacity)  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        raybackend.BasicActorPool, vce_api.ThreadPoolExecutor = originals  # type: ignore[misc]
