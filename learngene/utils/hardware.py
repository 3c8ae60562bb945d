"""The machine: cores, memory, libraries; torch's threads, deterministic kernels."""

from __future__ import annotations

import ctypes
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_CGROUP, _PROC = Path("/sys/fs/cgroup"), Path("/proc")


def usable_cores() -> int:
    """Cores this process may use: its affinity, and the container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return max(1, min(cores or 1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or "max"
        return cores or 1


def memory() -> tuple[float, float]:
    """Bytes of memory that are free and that there are in all, swap included, or the container's
    where it has fewer; infinity where the system does not say."""
    free = total = math.inf
    with suppress(OSError, ValueError, KeyError):
        said = _counts(_PROC / "meminfo", 1024)
        free = said["MemAvailable:"] + said["SwapFree:"]
        total = said["MemTotal:"] + said["SwapTotal:"]
    with suppress(OSError, ValueError, KeyError):  # no cgroup v2, or "max"
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
        given_back = _counts(_CGROUP / "memory.stat")["inactive_file"]  # when somebody asks for it
        free, total = min(free, limit - used + given_back), min(total, limit)
    return free, total


def free_memory(device: torch.device) -> float:
    """Bytes that are free where tensors of this device lie; torch's own reserve counts as free."""
    if device.type != "cuda":
        return memory()[0]
    import torch

    idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return float(torch.cuda.mem_get_info(device)[0] + idle)


def _counts(path: Path, unit: int = 1) -> dict[str, int]:
    """A file of lines NAME COUNT as the kernel writes them."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {name: unit * int(count) for name, count, *_ in lines}


def library_version(name: str) -> str:
    """The version of an installed distribution, or ``unknown``: one that is there without its
    metadata (a copied folder, a frozen program) computes all the same."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


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


PRESSURE = 0.25  # alone, threads hardly ever wait for a core; beside a busy program nearly always


def contention(threads: int) -> str | None:
    """A warning where threads of this container or machine have waited for a core in a quarter of
    the last ten seconds; None where they have not, or where the kernel does not say.

    Threads of one training wait for each other in every operation, in some of oneDNN's without
    giving the core away (docs/PERFORMANCE.md): where one of them does not run, none gets on.
    """
    waited = 0.0
    for path in (_CGROUP / "cpu.pressure", _PROC / "pressure" / "cpu"):
        with suppress(OSError, ValueError, IndexError):
            waited = float(path.read_text().split()[1].removeprefix("avg10=")) / 100
            break
    if threads < 2 or waited <= PRESSURE:
        return None
    return (
        f"warning: {threads} threads that wait for each other share their cores with something "
        f"else ({waited:.0%} of the time somebody waits for one), which may take many times as "
        "long. collective.threads=1 waits for nobody (and makes another collective)"
    )


WORKSPACE = ":4096:8"  # cuBLAS then uses the same buffers, hence the same order of sums


def pin_kernels(device: torch.device, deterministic: bool = True) -> None:
    """How a GPU computes; nothing is done for a CPU.

    Call it before the first matrix product on the GPU: cuBLAS reads its variable then. A kernel
    that has no deterministic form (the backward pass of pooling to 2 x 2) still runs, as torch
    would otherwise refuse to train; its sums may differ in the last bits.

    Args:
        deterministic: kernels whose sums have one order, and full float32 products. False: the
            fastest kernel of each shape, found by trying, and products of float32 in TF32 (ten
            bits behind the point: crops of other sides than 32 move by a fiftieth of a pixel).
    """
    if device.type != "cuda":
        return
    import torch

    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    # Else torch writes NaN into every new tensor first, a kernel more for each.
    allocations: Any = torch.utils.deterministic  # a class in a module's place, unseen by mypy
    allocations.fill_uninitialized_memory = False
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    # Not ``allow_tf32``: torch raises where both ways of saying it are used in a process.
    products = "ieee" if deterministic else "tf32"
    torch.backends.cudnn.fp32_precision = products
    torch.backends.cuda.matmul.fp32_precision = products


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
