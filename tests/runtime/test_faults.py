"""Every planted fault, in one process and with Ray: named, never a number, the others untouched."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from conf.schema import Config
from protocol.messages import WORKER_DIED
from runtime.client_rounds import fault_orders
from runtime.ray_backend import simulate
from runtime.resources import RuntimeSettings
from strategies.learngene import LearngeneStrategy, RoundOutcome
from tests.runtime.curve_work import app, plan

# kill_always comes early: a pool that it poisons would answer for nobody after it.
REASONS = {
    "0:raise@2": "PlantedFault: planted after epoch 2",
    "1:kill_always": WORKER_DIED,
    "2:kill_once@2": None,
    "3:none": "TypeError: run_task returned NoneType, a dict is due",
    "4:nan": "learngene: accuracy is nan, a finite number is due; "
    "scratch: accuracy is nan, a finite number is due",
    "5:inf": "learngene: accuracy is inf, a finite number is due; "
    "scratch: accuracy is inf, a finite number is due",
    "6:shape": "learngene: accuracy has 2 values, epochs 3; "
    "scratch: accuracy has 2 values, epochs 3",
    "7:other_client": "the reply claims client 8, its node is client 7",
    "8:hang": "ClientOverdue: not done within 3 s (runtime.client_timeout_s)",
    "9:kill_once@0": None,
}
CLIENTS = 12  # the last two are sound


def run(
    name: str, rounds: list[tuple[list[str], float | None]], folder: Path, **settings: Any
) -> list[RoundOutcome]:
    """Rounds of (orders, each client's own limit in seconds)."""
    plans = [plan(orders, folder, limit) for orders, limit in rounds]
    strategy = LearngeneStrategy(CLIENTS, lambda number: [plans[number - 1]])
    simulate(strategy, len(plans), RuntimeSettings(name, **settings), CLIENTS, client_app=app)
    return strategy.rounds


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[RoundOutcome]:
    """Two rounds: the numbers depend on the round."""
    return run("serial", [([], None)] * 2, tmp_path_factory.mktemp("none"))


def check_round(found: RoundOutcome, sound: RoundOutcome) -> None:
    """The round with all of REASONS, against the same without any."""
    assert [each.error for each in found.clients] == [*REASONS.values(), None, None]
    assert (found.answered, found.failed, found.missing) == (4, 8, 0)
    for ours, theirs in zip(found.clients, sound.clients, strict=True):
        assert ours.methods == ({} if ours.error else theirs.methods)
        if not ours.error:
            assert (ours.info, ours.bytes_up) == (theirs.info, theirs.bytes_up)


def test_serial(undisturbed, tmp_path):
    (found,) = run("serial", [(list(REASONS), 3)], tmp_path)
    check_round(found, undisturbed[0])


@pytest.mark.ray
@pytest.mark.chaos  # each fault alone: test_ray_backend.py and test_workers.py
@pytest.mark.slow
def test_ray(undisturbed, tmp_path):
    """After the kills the pool is whole. (A hang that only the deadline ends: test_runtime.py.)"""
    rounds = [(list(REASONS), 3), ([], None)]
    first, second = run("ray", rounds, tmp_path, timeout_s=400, total_cpus=2)
    check_round(first, undisturbed[0])
    assert [each.methods for each in second.clients] == [e.methods for e in undisturbed[1].clients]
    assert [t for t in threading.enumerate() if not t.daemon] == [threading.main_thread()]


def test_an_undisturbed_message_says_nothing_of_faults(tmp_path):
    assert {"faults", "limit_s"}.isdisjoint(plan([], tmp_path).task.to_plain())


def test_serial_hang_ends_at_the_rounds_deadline(undisturbed, tmp_path):
    """In one process the clients after it have no time left: the clients before it keep theirs."""
    (found,) = run("serial", [(["10:hang"], None)], tmp_path, timeout_s=3)
    assert (found.answered, found.failed, found.missing) == (10, 0, 2)
    assert {each.error for each in found.clients[10:]} == {
        "no reply within 3 s (runtime.timeout_s)"
    }
    before = [each.methods for each in undisturbed[0].clients[:10]]
    assert [each.methods for each in found.clients[:10]] == before


def test_the_memory_of_a_death_is_gone_with_the_run(tmp_path):
    planted = ["0:kill_once"], tmp_path / "cache"
    with fault_orders(*planted) as orders:
        (Path(orders.folder) / "died-1-0").touch()
        assert orders.orders == ("0:kill_once",)
        with fault_orders(*planted) as beside:  # two runs at once have two memories
            assert beside.folder != orders.folder
    assert list((tmp_path / "cache").iterdir()) == []
    with fault_orders(Config(cache="").faults, tmp_path) as orders:
        assert orders is None
