"""What a running Ray cluster has, asked in a process of its own: Ray ends one that loses it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from learngene.errors import InputError

CONNECT_S = 5.0  # until a port has to answer
PATIENCE_S = 30.0  # for all that is asked, Ray's import included
GIVE_UP = "RAY_gcs_rpc_server_reconnect_timeout_s"  # how long Ray looks for a lost gcs (60)
HOST_PORT = re.compile(r"([\w.%-]+|\[[\w.:%]+\]):(\d{1,5})", re.ASCII)
FIX = "Write HOST:PORT of a cluster that runs, auto for the one that `ray start` made here, or null"


@dataclass(frozen=True)
class Node:
    """What a machine of a cluster has."""

    cpus: float
    gpus: float

    def workers(self, num_cpus: float, num_gpus: float) -> int:
        """How many clients that hold so much of it run there at once, as Flower counts them."""
        fit = int(self.cpus / num_cpus)
        return min(fit, int(self.gpus / num_gpus)) if num_gpus else fit


@cache  # a run asks more than once, and the answer takes seconds
def look_up(address: str) -> tuple[str, tuple[Node, ...]]:
    """Where the cluster is (HOST:PORT) and what its nodes have.

    ``auto`` is RAY_ADDRESS where that is set, otherwise the cluster that ``ray start`` made last on
    this machine. Ray's own ``auto`` joins whatever runs there, also what another run has started
    for itself.

    Raises:
        InputError: there is no such cluster, or it does not answer.
    """
    if address != "auto" and not HOST_PORT.fullmatch(address):
        raise InputError("runtime.address", address, "no HOST:PORT", FIX)
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH")]
    known = {GIVE_UP: "5"} | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-P", "-m", "runtime.cluster", address]
    try:
        asked = subprocess.run(
            command, env=known, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        answer = json.loads(asked.stdout)
    except (subprocess.TimeoutExpired, ValueError) as error:
        problem = "something listens there, and gives no answer as a Ray cluster of this version"
        raise InputError("runtime.address", address, problem, FIX) from error
    if "problem" in answer:
        raise InputError("runtime.address", address, answer["problem"], FIX)
    return answer["address"], tuple(Node(**each) for each in answer["nodes"])


def _answer(address: str) -> dict[str, object]:
    where = address
    if address == "auto":
        from ray._private.utils import read_ray_address

        where = os.environ.get("RAY_ADDRESS") or read_ray_address() or ""
        if not where:
            return {"problem": "no Ray cluster was started with `ray start` on this machine"}
    parts = HOST_PORT.fullmatch(where)
    if parts is None:  # in RAY_ADDRESS
        return {"problem": f"{where} is no HOST:PORT"}
    host, port = parts[1].strip("[]"), int(parts[2])
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:  # OverflowError: the port
        return {"problem": f"nothing answers at {where} ({error})"}
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.gcs_pb2 import GcsNodeInfo  # type: ignore[attr-defined]

    try:
        there = GcsClient(address=where).get_all_node_info(timeout=CONNECT_S).values()
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        return {"problem": f"the cluster at {where} refuses: {type(error).__name__}: {said}"}
    alive = [each.resources_total for each in there if each.state == GcsNodeInfo.ALIVE]
    nodes = [{"cpus": each.get("CPU", 0.0), "gpus": each.get("GPU", 0.0)} for each in alive]
    return {"address": where, "nodes": nodes}


if __name__ == "__main__":
    print(json.dumps(_answer(sys.argv[1])))
