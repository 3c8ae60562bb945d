"""What a runtime asks of the machine, held against what the machine has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learngene.errors import InputError


@dataclass(frozen=True)
class RuntimeSettings:
    """``conf.schema.Runtime``, which see, without the configuration library."""

    name: str = "ray"
    timeout_s: float = 3600.0
    min_answered: int | None = None
    cpus_per_client: int = 1
    gpus_per_client: float | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    address: str | None = None


@dataclass(frozen=True)
class Resources:
    """What Ray is started with, and what a client holds of it."""

    num_cpus: int | None  # None: the cluster's own
    num_gpus: int | None
    cpus_per_client: int
    gpus_per_client: float
    address: str | None = None  # None: a new cluster on this machine

    def init_args(self) -> dict[str, Any]:
        """What ``ray.init`` is called with."""
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if self.address:
            return {"address": self.address, **quiet}
        # "local": never a cluster that happens to be there
        own = {"address": "local", "num_cpus": self.num_cpus, "num_gpus": self.num_gpus}
        return {**own, **quiet}


def check_resources(runtime: RuntimeSettings, num_clients: int) -> Resources:
    """Hold what clients ask for against what there is; Flower would hang where it is too little.

    ``num_cpus`` and ``num_gpus`` are believed, also beyond what the machine has: this is how four
    GPUs are pretended. Ray is given no more cores than all clients need, since it starts a worker
    for each (370 MB with torch).

    Raises:
        InputError: naming the field, both numbers and the fix.
    """
    cpus, asked = runtime.cpus_per_client, runtime.gpus_per_client
    if cpus < 1:
        raise InputError("runtime.cpus_per_client", cpus, "a client needs a core", "Use 1 or more")
    if asked is not None and (asked < 0 or (asked > 1 and asked != int(asked))):
        raise InputError(
            "runtime.gpus_per_client",
            asked,
            "a client holds a fraction of one GPU or a whole number of them",
            "Use 0, 0 < x <= 1 or an integer",
        )
    if runtime.address:  # the cluster has what it has; it was sized by whoever started it
        if runtime.num_cpus is not None or runtime.num_gpus is not None:
            raise InputError(
                "runtime.address",
                runtime.address,
                "a running cluster has its own num_cpus and num_gpus",
                "Leave runtime.num_cpus and runtime.num_gpus away",
            )
        return Resources(None, None, cpus, float(asked or 0), runtime.address)
    have_cpus = _cores() if runtime.num_cpus is None else runtime.num_cpus
    if cpus > have_cpus:
        raise InputError(
            "runtime.cpus_per_client",
            cpus,
            f"a client asks for {cpus} cores, there are {have_cpus}",
            f"Use {have_cpus} or fewer, or raise runtime.num_cpus",
        )
    have_gpus = runtime.num_gpus
    if have_gpus is None:
        have_gpus = 0 if asked == 0 else _gpus()
    if asked is None:
        asked = 1.0 if have_gpus and _gpus() else 0.0
    if asked > have_gpus:
        raise InputError(
            "runtime.gpus_per_client",
            asked,
            f"a client asks for {asked:g} GPUs, there are {have_gpus}",
            "Use 0 to run on the processor, a share of what there is, or raise runtime.num_gpus",
        )
    return Resources(min(have_cpus, cpus * num_clients), have_gpus, cpus, float(asked))


def _cores() -> int:
    """Cores this process may use: its affinity, and the container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores or 1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return cores or 1


def _gpus() -> int:
    import torch  # late: half of what the driver's start costs

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
