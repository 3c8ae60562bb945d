"""The one place where kernels are pinned, so that equal seeds give equal numbers.

On the CPU torch's kernels are deterministic at a given number of threads, which the configuration
sets (``collective.threads``, ``runtime.num_cpus``). On a GPU they are only where torch is told so,
and there TF32 would round products to ten bits. docs/REPRODUCIBILITY.md says what then holds.
"""

from __future__ import annotations

import os
import warnings

import torch

WORKSPACE = ":4096:8"  # cuBLAS then uses the same buffers, hence the same order of sums


def pin_kernels(device: torch.device) -> None:
    """Deterministic kernels and full float32 products on a GPU; nothing is done for a CPU.

    Call it before the first matrix product on the GPU: cuBLAS reads its variable then. A kernel
    that has no deterministic form (the backward pass of pooling to 2 x 2) still runs, as torch
    would otherwise refuse to train; its sums may differ in the last bits.
    """
    if device.type != "cuda":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
