"""One function makes every generator, from (seed, phase, round, client).

No module keeps global random state: whoever needs chance is handed a generator made here. Code that
is not ours may draw from the global generators all the same: see ``global_chance``.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def _entropy(seed: int, phase: str, round: int, client: int) -> int:
    key = f"{seed}/{phase}/{round}/{client}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:16], "big")


def generator(seed: int, phase: str, round: int = 0, client: int = 0) -> np.random.Generator:
    """A NumPy generator that depends on its arguments and on nothing else."""
    return np.random.default_rng(_entropy(seed, phase, round, client))


def torch_generator(seed: int, phase: str, round: int = 0, client: int = 0) -> torch.Generator:
    """The same for torch, on the CPU (draws are moved to the device, so a GPU sees equal draws)."""
    made = torch.Generator()
    made.manual_seed(_entropy(seed, phase, round, client) >> 65)  # torch seeds hold 63 bits
    return made


@contextmanager
def global_chance(seed: int, phase: str, round: int = 0, client: int = 0) -> Iterator[None]:
    """Global generators (torch's, NumPy's, Python's) that the arguments determine; then the old."""
    entropy = _entropy(seed, phase, round, client)
    python, numpy = random.getstate(), np.random.get_state()
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(gpus):
        random.seed(entropy)
        np.random.seed(entropy % 2**32)
        # Without a GPU ``torch.manual_seed`` keeps each seed for one, with a traceback, for ever.
        there = torch.cuda.is_available()
        (torch.manual_seed if there else torch.default_generator.manual_seed)(entropy >> 65)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
