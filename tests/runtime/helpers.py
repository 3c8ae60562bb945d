"""What a stranger on this machine can do to a Ray that listens somewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from runtime.cluster import GIVE_UP

INTRUDER = """
import os, sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
pid = ray.get(ray.remote(num_cpus=0)(lambda: os.getpid()).remote(), timeout=60)
print("RAN IN IT", pid != os.getpid())
"""


def run_in(address: str, known: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Tries to run a task in the Ray at ``address``, from a process that knows these variables."""
    mine = {key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")}
    mine |= {GIVE_UP: "5", "RAY_NUM_REDIS_GET_RETRIES": "3"}  # seconds; tries, one a second
    return subprocess.run(
        [sys.executable, "-c", INTRUDER, address],
        env={**mine, **known},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
