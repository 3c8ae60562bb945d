"""Workers that die, freeze, are ended or lose their node; Ray that dies: who answers all the same.

Beside ``test_faults.py``: there the client's own work fails, here what it runs on does.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, MessageType, RecordDict
from flwr.server.superlink.fleet.vce import vce_api
from flwr.supercore.task_identity import TaskIdentity
from ray.exceptions import ActorDiedError, RayTaskError

from protocol.messages import WORKER_DIED, WORKER_STUCK
from runtime import workers
from runtime.ray_backend import simulate
from runtime.ray_start import RayStart
from runtime.resources import Resources, RuntimeSettings
from strategies.learngene import LearngeneStrategy, RoundOutcome
from tests import chaos
from tests.helpers import hooked
from tests.runtime.fake_work import app, fake_task, plan

CLIENTS = 6


def run(
    does: list[dict[str, str]],
    folder: Path,
    on_reply=lambda client, ok: None,
    seconds: float = 0.0,
    ray: RayStart | None = None,
    **settings,
) -> list[RoundOutcome]:
    plans = [plan(fake_task(do=each, folder=str(folder), seconds=seconds)) for each in does]
    strategy = LearngeneStrategy(CLIENTS, lambda number: [plans[number - 1]])
    strategy.nodes.wait_s = 300
    runtime = RuntimeSettings("ray", timeout_s=300, **settings)
    callback = hooked(on_reply=on_reply)
    simulate(strategy, len(does), runtime, CLIENTS, client_app=app, callback=callback, ray=ray)
    return strategy.rounds


class Job:
    """What Ray gives for a call: resolved, failed, or never."""

    def __init__(self, result: Any = None) -> None:
        self._future: Future[Any] = Future()
        if isinstance(result, Exception):
            self._future.set_exception(result)
        elif result is not None:
            self._future.set_result(result)

    def remote(self, *args: Any) -> Job:
        return self

    def future(self) -> Future[Any]:
        return self._future


class FakeWorker:
    def __init__(self, run: Any, up: Any = True) -> None:
        self.run, self.__ray_ready__ = Job(run), Job(up)


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch):
    """``pool(workers, client_timeout_s)``: a pool of one worker, and those that may replace it."""
    monkeypatch.setattr(workers, "TICK_S", 0.01)
    monkeypatch.setattr(workers, "STUCK_S", 0.05)
    monkeypatch.setattr("ray.kill", lambda worker, no_restart: None)

    def make(them: list[FakeWorker], client_timeout_s: float | None = None) -> workers.WorkerPool:
        made = workers.WorkerPool(client_timeout_s, lambda: None)
        made._create = iter(them).__next__
        made.add_actors_to_pool(1)
        return made

    yield make


def ask(
    pool: workers.WorkerPool,
    message_type: str = MessageType.TRAIN,
    round: str = "1",
    message_id: str = "",
) -> Any:
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    message = Message(RecordDict(), 1, message_type, group_id=round)
    message.metadata.__dict__["_message_id"] = message_id
    job = (lambda: lambda message, context: "from here", message, "0", None)
    return pool.fetch_result_and_return_actor_to_pool(
        pool.submit(lambda worker, *job: worker.run.remote(*job), job)
    )


DEAD, GOOD = ActorDiedError(), ("0", "reply", None)


@pytest.mark.parametrize(
    ("them", "answer"),
    [
        ([DEAD, GOOD, GOOD], ("reply", None)),
        ([None, GOOD, GOOD], ("reply", None)),  # None: never
        ([DEAD, DEAD, GOOD], WORKER_DIED),
        ([None, None, GOOD], WORKER_STUCK),
    ],
)
def test_a_client_is_repeated_once_by_another_worker(them, answer, pool):
    made = pool([FakeWorker(each) for each in them], client_timeout_s=0.05)
    if isinstance(answer, tuple):
        assert ask(made) == answer
    else:
        with pytest.raises(workers.WorkerLost, match=answer):
            ask(made)
    assert ask(made) == ("reply", None)  # the pool is as large as before


def test_one_that_takes_many_times_as_long_as_the_others_is_repeated(pool):
    quick, frozen = FakeWorker(GOOD), Job()
    made = pool([quick, FakeWorker(GOOD), FakeWorker(GOOD)])
    ask(made)
    quick.run = frozen
    assert ask(made) == ("reply", None)


def test_a_later_round_of_more_work_is_no_sign_of_a_frozen_worker(pool):
    quick, slow = FakeWorker(GOOD), Job()
    made = pool([quick])  # nobody is there to repeat it
    ask(made)
    quick.run = slow
    threading.Timer(0.5, slow.future().set_result, [GOOD]).start()  # ten times STUCK_S
    assert ask(made, round="2") == ("reply", None)


def test_every_worker_has_a_thread():
    """Flower's own number is that of the cores, and 32 at most."""
    made, all_here = workers.WorkerPool(None, lambda: None), threading.Barrier(50)
    made.actors_capacity = made.num_actors = 50
    with workers.lasting_workers(made), vce_api.ThreadPoolExecutor() as executor:
        here = [executor.submit(all_here.wait, 60) for _ in range(50)]
    assert sorted(each.result() for each in here) == list(range(50))
    assert vce_api.ThreadPoolExecutor is ThreadPoolExecutor


def test_the_apps_own_error_is_not_repeated(pool):
    failed = RayTaskError("run", "ValueError: shard is empty", ValueError("shard is empty"))
    made = pool([FakeWorker(failed.as_instanceof_cause())])
    with pytest.raises(ValueError, match="shard is empty"):
        ask(made)


def test_work_of_a_round_that_is_over_is_not_begun(pool):
    """It lies in Flower's queue before that of the next round, which would wait for it."""
    worker = FakeWorker(RuntimeError("begun"))
    made = pool([worker])
    made.late = {"1-late"}
    with pytest.raises(workers.WorkerLost, match="its round is over"):
        ask(made, message_id="1-late")
    worker.run = Job(GOOD)
    assert ask(made, round="2", message_id="2") == ("reply", None)


def test_who_a_node_is_needs_no_work_of_a_worker(pool):
    assert ask(pool([FakeWorker(None)]), MessageType.QUERY) == ("from here", None)


def test_workers_that_cannot_start_are_not_started_for_ever(pool):
    started = [FakeWorker(GOOD, DEAD) for _ in range(10)]
    with pytest.raises(workers.WorkerLost, match="no worker can be started"):
        ask(pool(started))
    one_late = [FakeWorker(GOOD, DEAD), FakeWorker(GOOD)]
    assert ask(pool(one_late)) == ("reply", None)


def test_whoever_waits_for_a_worker_hears_of_the_end(pool):
    made = pool([FakeWorker(GOOD, None)])
    made._coming = {}  # it never comes
    threading.Timer(0.1, made._ended.set).start()
    with pytest.raises(workers.WorkerLost, match="the run has ended"):
        ask(made)


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """By which ``chaos.processes`` finds the workers of this test."""
    monkeypatch.setenv(chaos.MARK, str(tmp_path))
    return str(tmp_path)


def worker_ids(mark: str) -> list[int]:
    return [pid for pid, name in chaos.processes(mark).items() if "ClientAppActor" in name]


@pytest.mark.ray
@pytest.mark.chaos  # one that ends: test_ray_backend.py
@pytest.mark.slow
def test_a_worker_that_is_frozen_or_ended_is_replaced_and_its_client_repeated(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One frozen as it appears, while the server asks who is who; one frozen and one ended at work.

    Nobody waits for them: the round or the question would last 300 s.
    """
    monkeypatch.setattr(workers, "STUCK_S", 4.0)
    # A loaded machine imports for longer than that: each worker does before it counts as up.
    start = RayStart(Resources(2, 0, 1, 0.0), None)
    frozen: list[int] = []

    def freeze() -> None:
        deadline = time.monotonic() + 120
        while not frozen and time.monotonic() < deadline:
            frozen.extend(worker_ids(mark)[:1])
            time.sleep(0.01)
        os.kill(frozen[0], signal.SIGSTOP)

    threading.Thread(target=freeze, daemon=True).start()
    started = time.monotonic()
    start.begin(early=True)
    with closing(start):
        first, second = run([{}, {"1": "freeze once", "4": "end once"}], tmp_path, ray=start)
    assert [each.error for each in first.clients + second.clients] == [None] * 12
    assert first.queries == CLIENTS
    assert frozen and time.monotonic() - started < 290
    assert not chaos.left_behind(mark)  # a frozen one hears of nothing, not even that Ray has gone


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_dies_costs_no_client(tmp_path: Path) -> None:
    """Two nodes of one core: one is killed in mid-run, the other does the rest."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        killed: list[int] = []  # after how many answers: both nodes are at work

        def kill(client: int, ok: bool) -> None:
            if not killed:
                killed.append(client)
                cluster.remove_node(node, allow_graceful=False)

        slow = [{str(client): "slow" for client in range(CLIENTS)}]
        (only,) = run(slow, tmp_path, kill, seconds=1, address=cluster.address)
        assert killed and [each.error for each in only.clients] == [None] * CLIENTS
    finally:
        cluster.shutdown()
