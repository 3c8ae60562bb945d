"""Client work that does nothing but what the task tells it, importable by Ray workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from clients import faults
from clients.client_app import make_client_app
from protocol.guard import MessageSchema
from protocol.reply_schema import DEVICE, ReplySchema
from protocol.rounds import RoundPlan
from protocol.task import ClientTask
from tests.protocol.helpers import client_task

METHODS = ("learngene", "scratch")
REPLY = ReplySchema(
    metrics={"learngene": {"accuracy": 0, "curve": 3}, "scratch": {"accuracy": 0, "steps": 3}},
    info={"device": DEVICE, "round": 0, "visible": DEVICE, "pid": 0},
)


def make_schema(task: ClientTask) -> ReplySchema:
    """What ``run_task`` may answer: its made-up metrics, which are no curves."""
    return REPLY


def fake_task(methods: tuple[str, ...] = METHODS, **told: Any) -> ClientTask:
    """``told`` is ``do`` (see ``run_task``), and the ``folder`` and ``meet`` that it may need."""
    return client_task(methods=methods, method={"fake": told})


def plan(task: ClientTask, payloads: dict[str, dict[str, np.ndarray]] | None = None, **changed):
    """A round's plan that declares what it holds; ``changed`` are fields of ``MessageSchema``."""
    payloads = payloads or {}
    shapes = {
        method: {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
        for method, arrays in payloads.items()
    }
    made = {"payloads": shapes, "reply": REPLY} | changed
    return RoundPlan(task, payloads, schema=MessageSchema(**made))


def run_task(client: int, round: int, task: ClientTask, payloads: dict[str, Any]) -> Any:
    """``do[str(client)]`` says how this client misbehaves; by default it answers well."""
    weights = payloads.get("learngene", {"w": np.zeros(1, np.float32)})
    total = float(sum(array.sum(dtype=np.float64) for array in weights.values()))
    methods: dict[str, Any] = {
        "learngene": {"accuracy": total + client / 10, "curve": [0, 0.25, client / 7]},
        "scratch": {"accuracy": client / 3, "steps": [1, round, client]},
    }
    answer = {"client": client, "info": {"device": "cpu", "round": round}, "methods": methods}
    faults.reached(1)
    told = task.method["fake"]
    match told.get("do", {}).get(str(client)):
        case "raise":
            raise ValueError("shard is empty")
        case "exit":
            raise SystemExit(3)
        case "none":
            return None
        case "nan":
            methods["scratch"]["accuracy"] = float("nan")
        case "inf":
            methods["scratch"]["steps"] = [1.0, float("-inf")]
        case "wrong client":
            answer["client"] = client + 1
        case "missing method":
            del methods["learngene"]
        case "method error":
            methods["learngene"] = {"error": "RuntimeError: out of memory"}
        case "not a number":
            methods["learngene"]["accuracy"] = np.float32(0.5)
        case "stranger":
            methods["maml"] = {"accuracy": 1.0}
        case "die once" | "end once" | "freeze once" as how:
            mark = Path(told["folder"]) / f"died-{round}-{client}"
            if not mark.exists():
                mark.touch()
                signum = {"d": signal.SIGKILL, "e": signal.SIGTERM, "f": signal.SIGSTOP}[how[0]]
                os.kill(os.getpid(), signum)
                time.sleep(600)
        case "hang":
            time.sleep(600)
        case "slow":
            time.sleep(told.get("seconds", 0.4))
        case "meet":  # until all have come: proves that they run side by side
            folder = Path(told["folder"])
            (folder / f"here-{client}").touch()
            deadline = time.monotonic() + 60
            while len(list(folder.glob("here-*"))) < told["meet"] and time.monotonic() < deadline:
                time.sleep(0.05)
            answer["info"] = {"visible": os.environ.get("CUDA_VISIBLE_DEVICES"), "pid": os.getpid()}
    return answer


app = make_client_app(run_task, make_schema)
