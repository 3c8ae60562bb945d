"""The machine: usable cores, torch's threads, deterministic kernels, freed memory."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

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


WORKSPACE = ":4096:8"  # cuBLAS then uses the same buffers, hence the same order of sums


def pin_kernels(device: torch.device) -> None:
    """Deterministic kernels and full float32 products on a GPU; nothing is done for a CPU.

    Call it before the first matrix product on the GPU: cuBLAS reads its variable then. A kernel
    that has no deterministic form (the backward pass of pooling to 2 x 2) still runs, as torch
    would otherwise refuse to train; its sums may differ in the last bits.
    """
    if device.type != "cuda":
        return
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h
NEVER = 2**31 - 1


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Tell malloc so, once a process; False where the C library is not glibc."""
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - another library has other numbers
    except (OSError, TypeError, AttributeError):
        return False
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, NEVER))
