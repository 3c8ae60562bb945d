"""``runtime=batched`` beside serial: equal answers up to rounding, failures named the same way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from flwr.app import ArrayRecord, ConfigRecord

from clients import cohort
from clients.client_app import app
from clients.cohort import trained_together
from learngene.gene.gene import Learngene
from learngene.methods import scratch
from protocol.messages import WORKER_DIED
from protocol.plan import plan_round
from protocol.rounds import ClientOutcome, RoundOutcome
from protocol.task import FaultOrders
from runtime import batched_backend
from runtime.batched_backend import BatchedGrid
from runtime.client_rounds import run_client_rounds
from runtime.ray_backend import simulate
from runtime.resources import Federation, RuntimeSettings
from strategies.learngene import LearngeneStrategy
from tests.clients.helpers import make_task
from tests.helpers import gene_of, hooked
from tests.protocol.helpers import query_bytes

CLIENTS = 7


@pytest.fixture(scope="module")
def gene(evolved) -> Learngene:
    return gene_of(evolved.collective, range(1, 5))


def run(name: str, dataset: Any, gene: Learngene, **changed: Any) -> RoundOutcome:
    """One round; ``changed`` as in ``make_task``, ``faults``, fields of ``runtime``, ``told``."""
    own = {f: changed.pop(f) for f in [*changed] if f in RuntimeSettings.__dataclass_fields__}
    orders = changed.pop("faults", None)
    callback = hooked(on_progress=changed.pop("told", lambda *said: None))
    task = replace(make_task(dataset, gene, **changed), faults=orders)
    strategy = LearngeneStrategy(CLIENTS, lambda number: plan_round(task, gene, number))
    simulate(strategy, 1, RuntimeSettings(name, **own), CLIENTS, callback=callback)
    return strategy.rounds[0]


@pytest.fixture(scope="module")
def serial(tiny_dataset, gene) -> RoundOutcome:
    return run("serial", tiny_dataset, gene, individual__depth=[2, 4])


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many are trained together, as it happens."""
    seen: list[int] = []
    real = cohort.train_together

    def train(trainings):
        seen.append(len(trainings))
        return real(trainings)

    monkeypatch.setattr(cohort, "train_together", train)
    return seen


def assert_same(ours: list[ClientOutcome], theirs: list[ClientOutcome]) -> None:
    """Two of 18 test images apart in one client of ten at most; losses equal to a thousandth."""
    apart = []
    for one, other in zip(ours, theirs, strict=True):
        assert one.error is None and list(one.methods) == list(other.methods)
        assert (one.info, one.bytes_down, one.bytes_up) == (
            other.info,
            other.bytes_down,
            other.bytes_up,
        )
        for name, mine in one.methods.items():
            alone = other.methods[name]
            assert mine.keys() == alone.keys() and mine["seconds"] > 0
            for curve in ("epochs", "loss", "train_loss", "penalty", "fisher_mean", "depth"):
                if curve in mine:
                    assert mine[curve] == pytest.approx(alone[curve], rel=1e-3, abs=1e-6)
            gaps = [abs(a - b) for a, b in zip(mine["accuracy"], alone["accuracy"], strict=True)]
            apart.append(max(gaps))
    assert max(apart) < 0.12 and sum(gap > 0 for gap in apart) <= len(apart) / 10


def test_clients_of_two_depths_have_their_serial_answers(tiny_dataset, gene, serial, sizes):
    told: list[tuple[str, int, int]] = []
    asked = {"individual__depth": [2, 4], "told": lambda *said: told.append(said)}
    found = run("batched", tiny_dataset, gene, cohort=CLIENTS, **asked)
    assert ("clients are prepared", CLIENTS, CLIENTS) in told
    assert ("clients, 7 of scratch together", 1) in {each[:2] for each in told}
    assert sizes == [4, 7, 3]  # learngene at depth 2, scratch, learngene at depth 4
    assert_same(found.clients, serial.clients)
    assert found.answered == CLIENTS and query_bytes(found) == query_bytes(serial)


@pytest.mark.parametrize(
    ("asked", "bytes_free", "due"),
    [(3, 1e9, [3, 3]), (CLIENTS, 4.0, [2, 2, 2]), (CLIENTS, 0.0, []), (None, 1e9, [])],
    ids=["asked for", "as memory allows", "no memory", "on a CPU"],
)
def test_how_large_a_cohort_is(tiny_dataset, gene, monkeypatch, sizes, asked, bytes_free, due):
    """Half of what is free; who is left over is trained alone."""
    monkeypatch.setattr(cohort, "free_memory", lambda device: bytes_free)
    monkeypatch.setattr(cohort, "bytes_of", lambda training: 1)
    little = {"methods": ["scratch"], "individual__epochs": 0, "cohort": asked}
    assert run("batched", tiny_dataset, gene, **little).answered == CLIENTS
    assert sizes == due


def test_a_round_is_given_nothing_of_one_that_missed_its_deadline(tiny_dataset, gene, monkeypatch):
    trained: list[tuple[int, int]] = []
    real = batched_backend.run_task

    def watch(client, round, *rest):
        trained.append((client, round))
        return real(client, round, *rest)

    monkeypatch.setattr(batched_backend, "run_task", watch)
    task = make_task(tiny_dataset, gene, methods=["scratch"], individual__epochs=0)
    strategy = LearngeneStrategy(2, lambda number: plan_round(task, gene, number))
    grid = BatchedGrid(app, 2, None, cohort=2)
    for number in (1, 2):
        messages = strategy.configure_train(number, ArrayRecord(), ConfigRecord(), grid)
        pushed = set(grid.push_messages(messages))
    (reply,) = grid.pull_messages(pushed)
    assert strategy.receive(reply).error is None
    assert trained == [(0, 2), (1, 2)]


def test_what_fails_before_training_is_named_and_spares_the_others(
    tiny_dataset, gene, serial, monkeypatch
):
    real = scratch.METHOD

    def prepare(context):
        if context.client == 2:
            raise RuntimeError("out of luck")
        return real.prepare(context)

    monkeypatch.setattr(scratch, "METHOD", replace(real, prepare=prepare))
    found = run("batched", tiny_dataset, gene, cohort=CLIENTS, individual__depth=[2, 4]).clients
    assert found[2].error == "scratch: RuntimeError: out of luck"
    assert list(found[2].methods) == ["learngene"]
    others = [client for client in range(CLIENTS) if client != 2]
    assert_same([found[c] for c in others], [serial.clients[c] for c in others])


def test_a_cohort_that_fails_is_named_for_each_of_it(tiny_dataset, gene, monkeypatch):
    def fail(trainings):
        raise MemoryError("too many")

    monkeypatch.setattr(cohort, "train_together", fail)
    found = run("batched", tiny_dataset, gene, cohort=CLIENTS, methods=["scratch"])
    assert {each.error for each in found.clients} == {"scratch: MemoryError: too many"}


def test_planted_faults_strike_as_in_serial(tiny_dataset, gene, serial, tmp_path):
    planted = FaultOrders(("0:raise@2", "1:kill_always", "2:kill_once", "3:nan"), str(tmp_path))
    found = run(
        "batched", tiny_dataset, gene, cohort=CLIENTS, individual__depth=[2, 4], faults=planted
    ).clients
    failed = "PlantedFault: planted after epoch 2"
    assert found[0].error == f"learngene: {failed}; scratch: {failed}"
    assert found[1].error == WORKER_DIED
    assert "learngene: accuracy is nan" in str(found[3].error)
    sound = [2, 4, 5, 6]
    assert_same([found[c] for c in sound], [serial.clients[c] for c in sound])


def test_the_safeguard_and_federated_rounds_go_one_by_one(tiny_dataset, gene):
    task = make_task(tiny_dataset, gene)
    assert trained_together(task) == ("learngene", "scratch")
    guarded = replace(task, individual=replace(task.individual, safeguard=True))
    assert trained_together(guarded) == ("scratch",)
    assert trained_together(replace(task, federated=1)) == ()
    assert trained_together(replace(task, methods=("maml", "scratch"))) == ("scratch",)


def test_kept_answers_of_shared_kernels_are_not_those_of_serial(tiny_dataset, gene, tmp_path):
    task = make_task(tiny_dataset, gene, individual__epochs=0, individual__safeguard=True)
    notes: list[str] = []

    def asked(name: str, **more: Any) -> int:
        due: list[int] = []
        watch = hooked(on_clients_begin=due.append, on_note=notes.append)
        whole = Federation(RuntimeSettings(name, **more), 2, tmp_path)
        run_client_rounds(task, "sha", lambda number: gene, {}, whole, callback=watch)
        return due[0]

    assert [asked("batched", cohort=2), asked("serial")] == [2, 2]
    assert [asked("batched", cohort=9), asked("batched")] == [0, 0]  # without a GPU: serial's
    said = "runtime=batched, clients share kernels: scratch; one client after the other: learngene"
    assert notes.count(said) == 2 and "no kernels shared" in notes[-2]
