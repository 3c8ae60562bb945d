"""Memory that is freed stays with the process, to be used again by the next batch.

glibc hands large freed blocks back to the kernel, which fills them with zeros, page by page, when
they are asked for again. A training step at 84x84 frees and asks for hundreds of megabytes: this
took a sixth of the processor's time (docs/PERFORMANCE.md). The peak is not changed.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

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
