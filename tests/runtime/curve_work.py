"""Client work that answers with made-up curves, as long as they are due; importable by workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clients import faults
from clients.client_app import make_client_app
from learngene.adaptation.settings import IndividualSettings
from protocol.guard import MessageSchema
from protocol.reply_schema import CURVES, reply_schema
from protocol.rounds import RoundPlan
from protocol.task import ClientTask, FaultOrders
from tests.protocol.helpers import client_task

EPOCHS = 2


def run_task(client: int, round: int, task: ClientTask, payloads: dict[str, Any]) -> Any:
    """Numbers that depend on client, round and method alone, an epoch at a time.

    Without torch: a worker that is killed starts again in a second.
    """
    methods = {}
    for method in task.methods:
        found: dict[str, Any] = {name: [] for name in CURVES}
        for epoch in range(EPOCHS + 1):
            for number, name in enumerate(CURVES, start=len(method)):
                found[name].append((number * 7 + epoch * 13 + client * 29 + round * 31) % 97 / 97)
            found["epochs"][-1] = epoch
            faults.reached(epoch)
        methods[method] = found | {"seconds": 1.0, "train_accuracy": 0.5}
    return {"client": client, "info": {"device": "cpu"}, "methods": methods}


def plan(orders: list[str], folder: Path, limit_s: float | None = None) -> RoundPlan:
    task = client_task(
        individual=IndividualSettings(epochs=EPOCHS, eval_every=1),
        faults=FaultOrders(tuple(orders), str(folder)) if orders else None,
        limit_s=limit_s,
    )
    return RoundPlan(task, schema=MessageSchema({}, reply_schema(task)))


app = make_client_app(run_task)
