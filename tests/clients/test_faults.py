"""Orders as they are written, and a death in the middle of real training."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients import faults
from clients.faults import Order, PlantedFault, WorkerDied, armed, reached, spoil
from clients.work import run_task
from protocol.task import FaultOrders
from tests.clients.helpers import make_task
from tests.helpers import gene_of


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("3:raise", Order(3, "raise", 1)),
        ("0:kill_once@2", Order(0, "kill_once", 2)),
        ("12:hang@0", Order(12, "hang", 0)),
    ],
)
def test_orders_are_read(text, order):
    assert Order.read(text) == order


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("raise", "not of the form"),
        ("-1:raise", "not of the form"),
        ("1:raise@x", "not of the form"),
        ("1:raise@", "not of the form"),
        ("1:explode", "there is no such fault"),
    ],
)
def test_orders_that_are_none(text, problem):
    with pytest.raises(ValueError, match=problem):
        Order.read(text)


def orders(folder: Path, *texts: str) -> FaultOrders:
    return FaultOrders(texts, str(folder))


def test_it_strikes_its_client_after_its_epoch_and_no_other(tmp_path):
    asked = orders(tmp_path, "1:raise@2")
    with armed(asked, 0, 1, True):
        reached(2)
    with armed(asked, 1, 1, True):
        reached(1)
        with pytest.raises(PlantedFault, match="after epoch 2"):
            reached(2)
    reached(2)  # disarmed
    assert spoil({"client": 1, "methods": {}}) == {"client": 1, "methods": {}}


def test_an_error_stays_as_it_was_in_a_spoilt_answer(tmp_path):
    answer = {"client": 1, "methods": {"a": {"error": "x"}, "b": {"accuracy": [0.1, 0.2]}}}
    with armed(orders(tmp_path, "1:shape"), 1, 1, True):
        assert spoil(answer)["methods"] == {"a": {"error": "x"}, "b": {"accuracy": [0.1]}}
    assert answer["methods"]["b"] == {"accuracy": [0.1, 0.2]}


def test_killed_in_the_middle_of_training_the_repeated_work_has_the_same_numbers(
    tiny_dataset, evolved, tmp_path, monkeypatch
):
    gene = gene_of(evolved.collective)
    task = make_task(tiny_dataset, gene)
    payloads = {"learngene": gene.arrays}
    whole = run_task(1, 1, task, payloads)
    seen: list[int] = []
    original = faults.reached
    monkeypatch.setattr(faults, "reached", lambda e: (seen.append(e), original(e)))
    with armed(orders(tmp_path, "1:kill_once"), 1, 1, True):
        with pytest.raises(WorkerDied):
            run_task(1, 1, task, payloads)
        assert seen == [0, 1]  # one epoch was over, another was due
        again = run_task(1, 1, task, payloads)
    for answer in (whole, again):
        for metrics in answer["methods"].values():
            metrics.pop("seconds")
    assert again == whole
