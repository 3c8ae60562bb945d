"""The clients' work for tests of the order of answers: the first clients answer last.

Importable in a Ray worker, which finds it by its name.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from protocol.task import ClientTask

DELAYS_S = (6.0, 3.0, 0.0)


def late(
    client: int, round: int, task: ClientTask, payloads: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """``clients.work.run_task`` after a wait that is longer for the first clients."""
    from clients.work import run_task

    time.sleep(DELAYS_S[client])
    return run_task(client, round, task, payloads)
