"""A task for tests of what carries it; without torch, so that a worker starts in a second."""

from __future__ import annotations

from typing import Any

from learngene.adaptation.settings import IndividualSettings
from protocol.rounds import RoundOutcome
from protocol.task import ClientTask


def client_task(**changed: Any) -> ClientTask:
    """A task of two methods; ``changed`` are its fields."""
    made: dict[str, Any] = {
        "world": "",
        "methods": ("learngene", "scratch"),
        "seed": 0,
        "shard_seed": 0,
        "ways": 5,
        "shots": 10,
        "classes_from": "novel",
        "threads": 1,
        "individual": IndividualSettings(epochs=2, eval_every=1),
    }
    return ClientTask(**{**made, **changed})


def query_bytes(outcome: RoundOutcome) -> int:
    """Of the queries and their replies: round 0 of ``messages.csv``, and in no total of
    ``results.json``."""
    return sum(down + up for _, down, up, _ in outcome.who)
