"""Faults that are planted on purpose (``faults=[3:raise]``), to see what a run makes of them.

``armed`` is opened around a client's work, in one place (``clients.client_app``). Faults of the
process strike in ``reached``, which training calls after each epoch; faults of the answer are done
by ``spoil``. Without an order in the task nothing of this has any effect.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learngene.errors import Interruption
from protocol.task import FaultOrders

IN_TRAINING = ("kill_once", "kill_always", "raise", "hang")
IN_THE_ANSWER = ("none", "nan", "inf", "shape", "other_client")
KINDS = (*IN_TRAINING, *IN_THE_ANSWER)
FIRST_EPOCH = 1  # after which a fault of the process strikes, where its order names none


class PlantedFault(RuntimeError):
    """What ``raise`` raises."""


class WorkerDied(Interruption):
    """Stands for the death of a process that must not die, since it is the driver's (serial)."""


@dataclass(frozen=True)
class Order:
    """One client's fault: ``client:kind`` or ``client:kind@epoch``."""

    client: int
    kind: str
    epoch: int = FIRST_EPOCH

    @classmethod
    def read(cls, text: str) -> Order:
        """From the form of the command line.

        Raises:
            ValueError: in words, what is wrong with it.
        """
        client, colon, rest = text.partition(":")
        kind, at, epoch = rest.partition("@")
        if not colon or not client.strip().isdecimal() or bool(at) != epoch.strip().isdecimal():
            raise ValueError("not of the form CLIENT:KIND or CLIENT:KIND@EPOCH")
        if kind.strip() not in KINDS:
            raise ValueError(f"there is no such fault, there are {', '.join(KINDS)}")
        return cls(int(client), kind.strip(), int(epoch) if at else FIRST_EPOCH)


@dataclass(frozen=True)
class _Armed:
    order: Order
    mark: Path  # is there once kill_once has struck: this memory survives the process
    in_driver: bool


_armed: ContextVar[_Armed | None] = ContextVar("fault", default=None)


@contextmanager
def armed(faults: FaultOrders | None, client: int, round: int, in_driver: bool) -> Iterator[None]:
    """Have this client's fault, if one is ordered, strike inside.

    Args:
        in_driver: this process is the driver's, so a kill is a ``WorkerDied`` that is raised.
    """
    orders = {order.client: order for order in map(Order.read, faults.orders if faults else ())}
    if faults is None or client not in orders:
        yield
        return
    mark = Path(faults.folder) / f"died-{round}-{client}"
    # Late: it imports torch, which conf.validate does not need.
    from learngene.adaptation.training import after_each_epoch

    token = _armed.set(_Armed(orders[client], mark, in_driver))
    try:
        with after_each_epoch(reached):
            yield
    finally:
        _armed.reset(token)


def reached(epoch: int) -> None:
    """An epoch of some method's training is over: dies, raises or hangs where that was ordered."""
    fault = _armed.get()
    if fault is None or epoch != fault.order.epoch:
        return
    match fault.order.kind:
        case "kill_once" if not fault.mark.exists():
            fault.mark.touch()
            _die(fault)
        case "kill_always":
            _die(fault)
        case "raise":
            raise PlantedFault(f"planted after epoch {epoch}")
        case "hang":
            while True:
                time.sleep(1)


def _die(fault: _Armed) -> None:
    if fault.in_driver:
        raise WorkerDied
    os.kill(os.getpid(), signal.SIGKILL)


def spoil(answer: Any) -> Any:
    """The answer, or what the armed fault makes of it; the client's real numbers are not kept."""
    fault = _armed.get()
    if fault is None or fault.order.kind in IN_TRAINING:
        return answer
    if fault.order.kind == "none":
        return None
    if fault.order.kind == "other_client":
        return {**answer, "client": answer["client"] + 1}
    return {
        **answer,
        "methods": {
            name: _spoilt(metrics, fault.order.kind) for name, metrics in answer["methods"].items()
        },
    }


def _spoilt(metrics: Mapping[str, Any], kind: str) -> dict[str, Any]:
    if "error" in metrics:
        return dict(metrics)
    curve = list(metrics["accuracy"][:-1])
    if kind != "shape":
        curve.append({"nan": math.nan, "inf": math.inf}[kind])
    return {**metrics, "accuracy": curve}
