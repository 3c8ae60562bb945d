"""The clients' work for tests of the order of answers: the first client answers last.

Importable in a Ray worker, which finds it by its name, and the folder by the environment.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from protocol.task import ClientTask

FOLDER = "LEARNGENE_LATE"  # where clients that are done leave a mark; unset: nobody waits


def late(
    client: int, round: int, task: ClientTask, payloads: dict[str, dict[str, np.ndarray]]
) -> dict[str, Any]:
    """``clients.work.run_task``; client 0 answers once the second to be done has been."""
    from clients.work import run_task

    answer = run_task(client, round, task, payloads)
    if folder := os.environ.get(FOLDER):
        Path(folder, str(client)).touch()
        deadline = time.monotonic() + 60
        while client == 0 and len([*Path(folder).iterdir()]) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5 if client == 0 else 0)  # the other's answer is on its way
    return answer
