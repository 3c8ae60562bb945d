"""The same apps with Ray and without: equal outcomes, every failure named, nothing left behind."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from learngene.errors import InputError
from runtime import resources as resources_module
from runtime.ray_backend import simulate
from runtime.resources import Resources, RuntimeSettings, check_resources
from runtime.serial_backend import SerialGrid
from runtime.workers import WorkerPool
from server.server_app import WatchedGrid
from strategies.learngene import ClientOutcome, LearngeneStrategy, RoundOutcome, RoundPlan
from tests.helpers import hooked
from tests.protocol.helpers import query_bytes
from tests.runtime.fake_work import app, fake_task, plan

REPO = Path(__file__).resolve().parents[2]
GENE = {"w": np.arange(600, dtype=np.float32).reshape(20, 30), "b": np.ones(7, np.float32)}
PREFIX = GENE | {"w": GENE["w"][:5]}  # what every other client is sent of it
GENE_BYTES, PREFIX_BYTES = (sum(a.nbytes for a in each.values()) for each in (GENE, PREFIX))

# What each client does, by round.
GOOD: dict[str, str] = {}
BAD = {"0": "raise", "1": "nan", "2": "wrong client", "3": "missing method", "4": "none"}
WORSE = {"0": "exit", "1": "inf", "2": "method error", "3": "not a number", "4": "stranger"}
MEET = {"0": "meet", "1": "meet"}
DIES = {"2": "die once"}
HANGS = {"3": "hang"}


def run(
    name: str, does: list[dict[str, str]], folder: Path, clients: int = 5, **settings
) -> list[RoundOutcome]:
    def prepare(server_round: int) -> list[RoundPlan]:
        task = fake_task(do=does[server_round - 1], folder=str(folder), meet=len(MEET))
        return [plan(task, {"learngene": each}) for each in (GENE, PREFIX)]

    strategy = LearngeneStrategy(clients, prepare)
    simulate(strategy, len(does), RuntimeSettings(name, **settings), clients, client_app=app)
    return strategy.rounds


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One for all: its name is in the task, whose bytes are compared."""
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def serial(folder) -> list[RoundOutcome]:
    return run("serial", [GOOD, BAD, WORSE], folder)


@pytest.fixture(scope="module")
def with_ray(folder) -> tuple[list[RoundOutcome], float]:
    started = time.monotonic()
    gpus = {"total_gpus": 2, "num_gpus": 1.0}  # pretended
    does = [GOOD, BAD, WORSE, MEET, DIES, HANGS]
    rounds = run("ray", does, folder, timeout_s=20, total_cpus=2, **gpus)
    return rounds, time.monotonic() - started


def without_node(outcome: ClientOutcome) -> ClientOutcome:
    """Node ids are random, and a traceback tells of the caller's frames."""
    info = {key: value for key, value in outcome.info.items() if key != "traceback"}
    return replace(outcome, info=info)


def test_good_round(serial):
    first = serial[0]
    assert (first.asked, first.answered, first.failed, first.missing) == (5, 5, 0, 0)
    assert [each.client for each in first.clients] == [0, 1, 2, 3, 4]
    sent = [
        float(sum(array.sum(dtype=np.float64) for array in each.values()))
        for each in (GENE, PREFIX)
    ]
    assert [each.methods for each in first.clients] == [
        {
            "learngene": {"accuracy": sent[i % 2] + i / 10, "curve": [0.0, 0.25, i / 7]},
            "scratch": {"accuracy": i / 3, "steps": [1, 1, i]},
        }
        for i in range(5)
    ]
    assert first.clients[3].info == {"device": "cpu", "round": 1}


def test_partitions_are_asked_once(serial):
    assert [each.queries for each in serial] == [5, 0, 0]
    assert query_bytes(serial[0]) > 0 and query_bytes(serial[1]) == 0


def test_every_failure_is_named(serial):
    second, third = serial[1:]
    assert (second.answered, second.failed, second.missing) == (0, 5, 0)
    assert [each.error for each in second.clients] == [
        "ValueError: shard is empty",
        "scratch: accuracy is nan, a finite number is due",
        "the reply claims client 3, its node is client 2",
        "learngene: no metrics in the reply",
        "TypeError: run_task returned NoneType, a dict is due",
    ]
    assert [each.error for each in third.clients] == [
        "SystemExit: 3",
        "scratch: steps is -inf, a finite number is due",
        "learngene: RuntimeError: out of memory",
        "learngene: TypeError: accuracy is float32, a Python int or float is due",
        "UndeclaredError: not sent: MetricRecord 'metrics.maml' was not declared",
    ]


def test_a_failure_is_never_a_number_and_spares_the_other_method(serial):
    kept = [sorted(each.methods) for each in serial[1].clients + serial[2].clients]
    scratch, learngene = ["scratch"], ["learngene"]
    assert kept[:5] == [[], learngene, [], scratch, []]
    assert kept[5:] == [[], learngene, scratch, scratch, []]
    where = serial[1].clients[0].info["traceback"]
    assert where.endswith(" in run_task") and "shard is empty" not in where  # places, no values


def test_bytes(serial):
    first = serial[0]
    client = first.clients[0]
    gene, scratch = client.bytes_by_method["learngene"], client.bytes_by_method["scratch"]
    assert gene.down == client.bytes_down  # the only payload is its own
    assert gene.down - scratch.down > GENE_BYTES > scratch.down
    assert client.bytes_up > max(gene.up, scratch.up) > 0
    less = first.clients[1].bytes_down
    assert client.bytes_down - less == pytest.approx(GENE_BYTES - PREFIX_BYTES, abs=10)
    assert first.bytes_down == 3 * client.bytes_down + 2 * less
    assert first.bytes_up == sum(each.bytes_up for each in first.clients)


def test_serial_deadline_leaves_the_rest_missing(tmp_path):
    slow = {str(client): "slow" for client in range(5)}
    (only,) = run("serial", [slow], tmp_path, timeout_s=0.6)
    # the second client is cut short at the deadline, and nobody is started after it
    assert [each.replied for each in only.clients] == [True, False, False, False, False]
    assert (only.asked, only.answered, only.missing) == (5, 1, 4)
    assert only.clients[4].error == "no reply within 0.6 s (runtime.timeout_s)"
    assert only.clients[4].methods == {} and only.clients[4].bytes_up == 0


def test_error_of_the_plan_reaches_the_caller():
    def prepare(server_round: int) -> list[RoundPlan]:
        raise InputError("shots", 0, "too few", "Use 1 or more")

    with pytest.raises(InputError, match="shots=0"):
        simulate(LearngeneStrategy(1, prepare), 1, RuntimeSettings("serial"), 1, client_app=app)


def test_progress(tmp_path):
    seen: list[tuple[int, bool]] = []
    spoilt = plan(fake_task(do={"1": "nan"}))
    strategy = LearngeneStrategy(3, lambda _: [spoilt])
    settings = RuntimeSettings("serial")
    simulate(
        strategy,
        1,
        settings,
        3,
        client_app=app,
        callback=hooked(on_reply=lambda who, ok: seen.append((who, ok))),
    )
    assert sorted(seen) == [(0, True), (1, False), (2, True)]


@pytest.mark.ray
def test_ray_equals_serial(serial, with_ray):
    """Also the bytes: clients are counted in the order of the partitions, whoever came first."""
    for ours, theirs in zip(serial, with_ray[0][:3], strict=True):
        assert [without_node(each) for each in ours.clients] == [
            without_node(each) for each in theirs.clients
        ]
        assert (ours.queries, query_bytes(ours)) == (theirs.queries, query_bytes(theirs))


@pytest.mark.ray
def test_client_killed_once_answers_in_the_same_round(with_ray):
    """The pool in the place of Flower's; ``test_workers.py`` has what else may happen to it."""
    fifth = with_ray[0][4]
    assert [each.error for each in fifth.clients] == [None] * 5


@pytest.mark.ray
def test_client_that_hangs_is_missing_and_does_not_hold_up_the_end(with_ray):
    rounds, seconds = with_ray
    assert [each.replied for each in rounds[5].clients] == [True, True, True, False, True]
    assert (rounds[5].answered, rounds[5].missing) == (4, 1)
    assert rounds[5].clients[3].error == "no reply within 20 s (runtime.timeout_s)"
    assert seconds < 300  # the client sleeps for 600
    stuck = [each for each in threading.enumerate() if not each.daemon]
    assert stuck == [threading.main_thread()]
    assert "RAY_ADDRESS" not in os.environ


@pytest.mark.ray
def test_two_pretended_gpus_are_two_devices(with_ray):
    """Both clients are there at once, each with one of its own."""
    met = with_ray[0][3]
    assert met.answered == 5
    assert sorted(each.info["visible"] for each in met.clients[: len(MEET)]) == ["0", "1"]


@pytest.mark.ray
@pytest.mark.chaos  # as a command: test_signals.py
def test_interrupt_keeps_what_was_finished_and_leaves_nothing(tmp_path):
    """From another folder, without PYTHONPATH: workers find ``clients`` all the same."""
    script = REPO / "tests" / "runtime" / "interrupted.py"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    short = Path("/tmp") / secrets.token_hex(2)  # where Ray's folder is made, sockets and all
    short.mkdir()
    environment["RAY_TMPDIR"] = str(short)
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 130, done.stderr
    assert json.loads(done.stdout) == [[0, True], [1, False]]  # and no foreign line
    assert done.stderr == ""
    short.rmdir()  # it is empty


def test_too_many_gpus_fails_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(resources_module, "_gpus", lambda: 2)
    started = time.monotonic()
    with pytest.raises(InputError, match=r"runtime.num_gpus=99.*99 GPUs, there are 2"):
        run("ray", [GOOD], tmp_path, num_gpus=99)
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("settings", "gpus", "expected"),
    [
        # one worker for each client at most, however many cores there are
        ({"total_cpus": 64}, 0, Resources(5, 0, 1, 0.0)),
        ({"total_cpus": 3, "num_cpus": 2}, 0, Resources(3, 0, 2, 0.0)),
        # a GPU each where there is one; none where the user says so
        ({"total_cpus": 4}, 2, Resources(4, 2, 1, 1.0)),
        ({"total_cpus": 4, "num_gpus": 0.0}, 2, Resources(4, 0, 1, 0.0)),
        ({"total_cpus": 4, "total_gpus": 0}, 2, Resources(4, 0, 1, 0.0)),
        # pretended
        ({"total_cpus": 4, "total_gpus": 4, "num_gpus": 0.5}, 0, Resources(4, 4, 1, 0.5)),
        ({"total_cpus": 4, "total_gpus": 4}, 0, Resources(4, 4, 1, 0.0)),
    ],
)
def test_resources(settings, gpus, expected, monkeypatch):
    monkeypatch.setattr(resources_module, "_gpus", lambda: gpus)
    assert check_resources(RuntimeSettings(**settings), 5) == expected


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"total_cpus": 2, "num_cpus": 3}, "runtime.num_cpus"),
        ({"num_cpus": 0}, "runtime.num_cpus"),
        ({"total_cpus": 2, "total_gpus": 1, "num_gpus": 2}, "runtime.num_gpus"),
        ({"total_cpus": 2, "total_gpus": 4, "num_gpus": 1.5}, "runtime.num_gpus"),
        ({"total_cpus": 2, "num_gpus": -1}, "runtime.num_gpus"),
    ],
)
def test_impossible_resources(settings, field):
    with pytest.raises(InputError) as caught:
        check_resources(RuntimeSettings(**settings), 5)
    assert caught.value.field == field


@pytest.mark.parametrize("starts", [False, True])
def test_backend_that_cannot_start(starts, tmp_path, monkeypatch):
    """Its reason reaches the caller at once, though the ServerApp still waits for its clients."""

    def broken(server_app, client_app, num_supernodes):
        if starts:
            grid = WatchedGrid(SerialGrid(client_app, 0), server_app.stop, lambda reply: None)
            threading.Thread(target=server_app, args=(grid, None)).start()
            server_app.started.wait()
        try:
            raise OSError("no room in /dev/shm")
        except OSError as error:
            raise RuntimeError("Simulation Runtime crashed.") from error

    monkeypatch.setattr("flwr.simulation.run_simulation", broken)
    monkeypatch.setattr("runtime.ray_start._surroundings", lambda resources: nullcontext({}))
    monkeypatch.setattr("ray.init", lambda: None)
    monkeypatch.setattr(WorkerPool, "open", lambda self, *holds, ready: None)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match="backend failed: OSError: no room in /dev/shm"):
        run("ray", [GOOD], tmp_path, total_cpus=1)
    assert time.monotonic() - started < 30


def test_unknown_runtime():
    strategy = LearngeneStrategy(1, lambda _: [plan(fake_task())])
    with pytest.raises(InputError, match="Choose ray, serial or batched"):
        simulate(strategy, 1, RuntimeSettings("slurm"), 1, client_app=app)


@pytest.mark.parametrize("code", [130, 143])
def test_after_a_signal_no_library_has_the_last_word(code):
    """What Ray does at the interpreter's end may abort the process: a shell would read -6."""
    program = (
        "import atexit, os; from runtime.ray_backend import leave; atexit.register(os.abort); "
        f"leave({code})"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2]
        ).returncode
        == code
    )
