"""The cores that this process may use, and how many of them torch takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = _QUOTA.read_text().split()
        return max(1, min(cores or 1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return cores or 1


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Run with this many torch threads, then as before; 0 changes nothing.

    The order of a sum depends on the number of threads: two processes agree bit for bit only at
    equal counts.
    """
    if not threads:
        yield
        return
    import torch  # late: half of what the driver's start costs

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
