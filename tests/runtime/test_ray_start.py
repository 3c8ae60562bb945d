"""When Ray begins before clients are due, what its failure then means, and that it always ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray._private.services import psutil  # Ray carries it

from runtime import ray_start
from runtime.ray_backend import simulate
from runtime.ray_start import RayStart
from runtime.resources import Resources, RuntimeSettings
from runtime.signals import BackendLost
from runtime.workers import WorkerPool
from strategies.learngene import LearngeneStrategy
from tests.runtime.fake_work import app, fake_task, plan

ROOT = Path(__file__).resolve().parents[2]
HERE = Resources(1, 0, 1, 0.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked of a Ray that is none."""
    made: list[Any] = []
    monkeypatch.setattr(ray_start, "_surroundings", lambda resources: nullcontext({}))
    monkeypatch.setattr("ray.init", lambda: made.append("init"))
    monkeypatch.setattr("ray.shutdown", lambda: made.append("shutdown"))
    monkeypatch.setattr(WorkerPool, "open", lambda self, *holds, ready: made.append(ready))
    return made


def after(stages: int, tasks: int) -> Any:
    return SimpleNamespace(stages=[None] * stages, tasks=[None] * tasks)


def test_it_begins_with_the_last_task(calls):
    start = RayStart(HERE, None)
    start.on_task_end(after(1, 3), False)
    start.close()
    assert calls == []
    start.on_task_end(after(2, 3), False)
    start.on_task_end(after(3, 3), False)
    with start.running(lambda: None):
        assert calls == ["init", True]  # True: workers import what they will need
    assert calls == ["init", True, "shutdown"]


def test_where_nothing_is_trained_it_begins_when_clients_are_due(calls):
    start = RayStart(HERE, None)
    start.on_task_end(after(3, 3), True)
    start.close()
    assert calls == []
    for _ in range(2):  # federated rounds, then the clients
        with start.running(lambda: None):
            pass
    assert calls == 2 * ["init", False, "shutdown"]


def test_methods_with_a_half_at_the_factory_put_it_off(calls):
    start = RayStart(HERE, None, halves=True)
    start.on_task_end(after(2, 3), False)
    start.on_method_step("protonet", 49, 100)
    start.close()
    assert calls == []
    start.on_method_step("protonet", 50, 100)
    with start.running(lambda: None):
        assert calls == ["init", True]


def test_a_joined_cluster_is_not_entered_early(calls):
    start = RayStart(Resources(None, None, 1, 0.0, address="10.0.0.1:6379"), None)
    start.on_task_end(after(2, 3), False)
    start.close()
    assert calls == []


def test_it_ends_whatever_comes_before_the_clients(calls):
    start = RayStart(HERE, None)
    with pytest.raises(KeyboardInterrupt), closing(start):
        start.begin(early=True)
        raise KeyboardInterrupt
    assert calls == ["init", True, "shutdown"]
    assert "ray's start" not in {each.name for each in threading.enumerate()}


def test_an_early_start_that_failed_is_tried_again_and_a_due_one_is_not(calls, monkeypatch):
    def init() -> None:
        calls.append("init")
        raise ValueError("no room\nfor it") from OSError(28, "no space")

    monkeypatch.setattr("ray.init", init)
    start = RayStart(HERE, None)
    start.begin(early=True)
    said = r"the Ray backend failed: OSError: \[Errno 28\] no space"
    with pytest.raises(BackendLost, match=said), start.running(lambda: None):
        pass
    assert calls == ["init", "shutdown", "init", "shutdown"]


def test_who_waits_for_clients_hears_that_ray_died_before(calls, monkeypatch):
    monkeypatch.setattr("runtime.ray_start._died", threading.Event())
    start, told = RayStart(HERE, None), list[str]()
    start.begin(early=True)
    start._pool.lost = BackendLost("Ray's raylet died")
    with pytest.raises(BackendLost, match="raylet died"), start.running(lambda: told.append("")):
        pass
    assert calls == ["init", True]  # one that died would be waited for
    assert told == []
    with pytest.raises(BackendLost, match="Ray died in an earlier run of this process"):
        RayStart(HERE, None)


def test_a_worker_that_is_ready_has_torch():
    code = "import sys; from clients.client_app import be_ready as b; print('torch' in sys.modules)"
    asked = [sys.executable, "-c", f"{code}; b(); print('torch' in sys.modules)"]
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.ray
def test_clients_are_answered_by_a_ray_that_began_before(tmp_path):
    before = dict(os.environ)
    start = RayStart(Resources(2, 0, 1, 0.0), None)
    with closing(start):
        start.begin(early=True)
        strategy = LearngeneStrategy(3, lambda number: [plan(fake_task(folder=str(tmp_path)))])
        simulate(strategy, 1, RuntimeSettings("ray"), 3, client_app=app, ray=start)
        assert [each.error for each in strategy.rounds[0].clients] == [None] * 3
    assert {name: os.environ.get(name) for name in before} == before
    assert not [name for name in {*os.environ} - {*before} if name.startswith("RAY_AUTH")]
    assert not [each for each in psutil.Process().children() if each.name() == "raylet"]
