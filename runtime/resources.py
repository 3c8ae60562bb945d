"""What a runtime asks of the machine, held against what the machine has."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learngene.errors import InputError
from learngene.utils.hardware import memory, usable_cores
from learngene.utils.settings import setting
from runtime.cluster import Node, look_up
from runtime.private_ray import check_folder

if TYPE_CHECKING:  # brings flwr
    from runtime.grid_backend import OutsideGrid
    from runtime.ray_start import RayStart

WORKER_BYTES = 370e6  # of a process with torch; what it works on is mapped, and shared with others


@dataclass
class RuntimeSettings:
    """Where clients run, and within which limits."""

    # ray | serial | batched; flwr run sets flwr: the nodes are Flower's own
    name: str = setting("ray", choices=("ray", "serial", "batched", "flwr"))
    # a round's deadline for answers, seconds
    timeout_s: float = setting(3600.0, gt=0, le=1_000_000)
    # One client's own time: a longer one has failed, and its worker is free for the next. Without
    # it a client that hangs keeps its worker until the round's deadline.
    # seconds; null = only the round's deadline
    client_timeout_s: float | None = setting(None, gt=0, le=1_000_000)
    # runtime=batched: clients that are trained together, at most, as memory allows; null = all of
    # them on a GPU; on a CPU 1, which is faster there
    cohort: int | None = setting(None, ge=1, le=100_000)
    # fewer clients than this is exit code 3; null = all
    min_answered: int | None = setting(None, ge=0)
    # cores of one client, fractions allowed; also its threads
    num_cpus: float = setting(1.0, gt=0, le=1024)
    # GPUs that a client holds; null = 1 where a machine has one beside num_cpus cores, else 0
    num_gpus: float | None = setting(None, ge=0, le=64)
    total_cpus: int | None = setting(None, ge=1, le=4096)  # cores that Ray may use; null = all
    total_gpus: int | None = setting(None, ge=0, le=4096)  # GPUs that Ray may use; null = all
    address: str | None = None  # join this Ray cluster; null = a new one on this machine
    # on a GPU, factory and clients: false = the fastest kernels and TF32, two runs differ
    deterministic: bool = True


@dataclass(frozen=True)
class Resources:
    """What Ray is started with, and what a client holds of it."""

    total_cpus: int | None  # None: the cluster's own
    total_gpus: int | None
    num_cpus: float
    num_gpus: float
    address: str | None = None  # None: a new cluster on this machine
    nodes: tuple[Node, ...] = ()  # of the cluster at ``address``
    clients: float = field(default=math.inf, compare=False)  # no more workers are started

    @property
    def workers(self) -> int:
        """How many clients run at once."""
        nodes = self.nodes or (Node(self.total_cpus or 0, self.total_gpus or 0),)
        room = sum(each.workers(self.num_cpus, self.num_gpus) for each in nodes)
        return int(min(room, self.clients))

    def init_args(self) -> dict[str, Any]:
        """What ``ray.init`` is called with."""
        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
        if self.address is not None:
            return {"address": self.address, **quiet}
        # "local": never a cluster that happens to be there
        own = {"address": "local", "num_cpus": self.total_cpus, "num_gpus": self.total_gpus}
        return {**own, **quiet}


@dataclass(frozen=True)
class Federation:
    """Who is asked, where they run, and where their answers are kept."""

    runtime: RuntimeSettings
    num_clients: int
    cache: Path
    resume: bool = True  # take up what an earlier run has kept
    resources: Resources | None = None  # of ``runtime``, as checked; None: without Ray
    outside: OutsideGrid | None = None  # nodes that Flower has already; None: ours, of ``runtime``
    ray: RayStart | None = None  # may have begun while the factory worked; None: begun when needed

    def device(self) -> dict[str, Any]:
        """Where clients compute, as far as it is known here."""
        return client_device(self.resources) if self.outside is None else self.outside.device()

    @property
    def node_of(self) -> Callable[[int], dict[str, Any] | None] | None:
        """What of a client's node its answers depend on; None: nothing."""
        nodes = None if self.outside is None else self.outside.nodes
        return None if nodes is None else nodes.state_of


def check_resources(runtime: RuntimeSettings, num_clients: int) -> Resources:
    """Hold what clients ask for against what there is; Flower would hang where it is too little.

    ``total_cpus`` and ``total_gpus`` are believed, also beyond what the machine has: this is how
    four GPUs are pretended. Ray is given no more cores than all clients need, since it starts a
    worker for each (370 MB with torch).

    Raises:
        InputError: naming the field, both numbers and the fix.
    """
    cpus, asked = runtime.num_cpus, runtime.num_gpus
    if cpus <= 0:
        raise InputError("runtime.num_cpus", cpus, "a client needs a share of a core", "Use 1")
    if asked is not None and (asked < 0 or (asked > 1 and asked != int(asked))):
        problem = "a client holds a fraction of one GPU or a whole number of them"
        raise InputError("runtime.num_gpus", asked, problem, "Use 0, 0 < x <= 1 or an integer")
    if runtime.address is not None:  # it was sized by whoever started it
        if runtime.total_cpus is not None or runtime.total_gpus is not None:
            problem = "a running cluster has its own total_cpus and total_gpus"
            fix = "Leave runtime.total_cpus and runtime.total_gpus away"
            raise InputError("runtime.address", runtime.address, problem, fix)
        return _on_cluster(runtime.address, cpus, asked)
    check_folder()
    have_cpus = usable_cores() if runtime.total_cpus is None else runtime.total_cpus
    if cpus > have_cpus:
        problem = f"a client asks for {cpus:g} cores, there are {have_cpus}"
        fix = f"Use {have_cpus} or fewer, or raise runtime.total_cpus"
        raise InputError("runtime.num_cpus", cpus, problem, fix)
    have_gpus = runtime.total_gpus
    if have_gpus is None:
        have_gpus = 0 if asked == 0 else _gpus()
    if asked is None:
        asked = 1.0 if have_gpus and _gpus() else 0.0
    if asked > have_gpus:
        problem = f"a client asks for {asked:g} GPUs, there are {have_gpus}"
        fix = "Use 0 to run on the processor, a share of what there is, or raise runtime.total_gpus"
        raise InputError("runtime.num_gpus", asked, problem, fix)
    due = min(have_cpus, math.ceil(cpus * num_clients))
    return Resources(due, have_gpus, cpus, float(asked), clients=num_clients)


def _on_cluster(address: str, cpus: float, asked: float | None) -> Resources:
    where, nodes = look_up(address)
    some = any(each.workers(cpus, 1) for each in nodes)  # as on one machine, GPUs are used
    gpus = float(some if asked is None else asked)
    resources = Resources(None, None, cpus, gpus, where, nodes)
    if not resources.workers:
        most = max((each.cpus for each in nodes), default=0)
        if cpus > most:
            problem = f"a client asks for {cpus:g} cores, no node of {where} has more than {most:g}"
            raise InputError("runtime.num_cpus", cpus, problem, f"Use {most:g} or fewer")
        most = max(each.gpus for each in nodes if each.cpus >= cpus)
        problem = f"a client asks for {gpus:g} GPUs and {cpus:g} cores, no node of {where} has both"
        fix = f"Use {most:g} or fewer, the most beside so many cores"
        raise InputError("runtime.num_gpus", gpus, problem, fix)
    return resources


def idle_nodes(resources: Resources | None) -> str | None:
    """A line where some of a cluster's nodes have no room for a client; None where none is idle."""
    if resources is None:
        return None
    cpus, gpus, nodes = resources.num_cpus, resources.num_gpus, resources.nodes
    idle = sum(not each.workers(cpus, gpus) for each in nodes)
    holds = f"a client holds {cpus:g} cores and {gpus:g} GPUs (runtime.num_cpus, runtime.num_gpus)"
    return f"{idle} of {len(nodes)} nodes of the cluster run no client: {holds}" if idle else None


def check_memory(resources: Resources | None, num_clients: int) -> str | None:
    """A warning where Ray's workers take more memory than is free; None where they do not.

    Raises:
        InputError: they take more than there is.
    """
    if resources is None or resources.address:
        return None
    workers, (free, there) = min(num_clients, resources.workers), memory()
    due = workers * WORKER_BYTES
    problem = f"{workers} workers take about {due / 1e9:.1f} GB of memory"
    if due > there:
        fix = "Lower it, or raise runtime.num_cpus: fewer clients at once"
        problem = f"{problem}, there are {there / 1e9:.1f} in all"
        raise InputError("runtime.total_cpus", resources.total_cpus, problem, fix)
    return f"warning: {problem}, {free / 1e9:.1f} are free" if due > free else None


def client_device(resources: Resources | None) -> dict[str, Any]:
    """Where clients compute; on a cluster elsewhere only what they are given of it is known."""
    import torch  # late: half of what the driver's start costs

    gpus = float(torch.cuda.is_available()) if resources is None else resources.num_gpus
    if not gpus:
        return {"kind": "cpu"}
    here = torch.cuda.get_device_name() if torch.cuda.is_available() else "elsewhere"
    return {"kind": here, "gpus": "some" if gpus <= 1 else gpus}


def _gpus() -> int:
    import torch  # late: half of what the driver's start costs

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
