"""What grows with the number of clients grows no faster than it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from protocol.guard import RecordEntry
from protocol.messages import ByteCount
from protocol.rounds import ClientOutcome, RoundOutcome
from reports.client_rows import client_rows
from reports.traffic import traffic_summary

looks: Counter[str] = Counter()


class Looked(list[Any]):
    """Counts how often it is gone through."""

    def __iter__(self) -> Iterator[Any]:
        looks["clients"] += 1
        return super().__iter__()


class Entry(RecordEntry):
    """Counts how often its bytes are asked for."""

    @property
    def bytes(self) -> int:  # type: ignore[override]
        looks["bytes"] += 1
        return self[5]


DOWN = (Entry("payload.learngene", "array", "w", "float32", "2x3", 24),)


def answer(client: int, method: str = "fedavg") -> ClientOutcome:
    curves: dict[str, Any] = {"epochs": [0, 1], "accuracy": [0.2, 0.5], "loss": [1.0, 0.5]}
    metrics = {**curves, "train_loss": [1.0, 0.5], "penalty": [0.0, 0.0], "seconds": 2.0}
    up = (RecordEntry(f"metrics.{method}", "metric", "seconds", "float", "", 8),)
    return ClientOutcome(
        client, True, {method: metrics}, {"classes": "0"}, 100 + client, 10,
        {method: ByteCount(100, 10)}, received=DOWN, sent=up,
    )  # fmt: skip


def test_a_client_that_names_a_class_that_is_not_there_has_no_numbers():
    """A real node's reply may hold anything; the others' rows are what they were."""
    odd = replace(answer(1), info={"classes": "0,7"})
    first, second = client_rows([answer(0), odd], 5, ["a"])
    assert first == client_rows([answer(0)], 5, ["a"])[0] and "error" not in first
    assert second["error"] == "refused: it names class 7, the dataset has 1"
    assert second["methods"] == {} and second["classes"] == []
    (silent,) = client_rows([replace(answer(0), info={})], 5, ["a"])
    assert silent["error"] == "refused: it names no classes" and not silent["methods"]


def test_the_rounds_of_a_federated_training_are_gone_through_once():
    looks.clear()
    rounds = [RoundOutcome(n, Looked(map(answer, range(30)))) for n in (1, 2)]
    rows = client_rows(list(map(answer, range(30))), 5, ["a"], {"fedavg": rounds})
    assert looks["clients"] == 2
    for row in rows:
        method = row["methods"]["fedavg"]
        assert (method["bytes_down"], method["bytes_up"]) == (100 + 2 * (100 + row["id"]), 30)
        assert method["seconds"] == 6.0


def test_what_thousands_of_messages_hold_is_added_up_once():
    looks.clear()
    down, up = traffic_summary([RoundOutcome(1, list(map(answer, range(1000))))])
    assert looks["bytes"] == 1
    assert down["messages"] == down["entries"] == up["messages"] == 1000
    assert (down["bytes"], up["bytes"]) == (24_000, 8_000)
