"""How unevenly a class lies among clients: shares drawn from a Dirichlet distribution.

Source: Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019,
section 4: of each class, p ~ Dir(alpha) over the clients says which share of its images each holds.
Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
Classification", 2019, draw over classes for each client instead; both leave clients alike where
alpha is large and with few classes where it is small. Too small clients are drawn anew, all
together, as in Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022 (and in
flwr-datasets' ``DirichletPartitioner``, which needs its own data sets).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from learngene.data.settings import DirichletPartition
from learngene.errors import InputError
from learngene.seeding import generator

TRIES = 1000  # draws of all shares
LEAST_CLASSES = 2  # of a client: with one there is nothing to tell apart


@lru_cache(8)  # every client of a process asks for the same
def divide(
    classes: int, images: int, partition: DirichletPartition, seed: int
) -> NDArray[np.int64]:
    """Where each client's part of each class ends; a pure function of its arguments.

    Args:
        classes, images: how many there are, and how many images of each are divided.

    Returns:
        (classes, clients + 1): client i has images [i] to [i + 1] of a class, in the order in which
        its images are shuffled.

    Raises:
        InputError: no draw gave every client ``min_images`` and two classes.
    """
    chance, clients = generator(seed, "dirichlet"), partition.clients
    ends = np.zeros((classes, clients + 1), np.int64)
    for _ in range(TRIES):
        shares = chance.dirichlet(np.full(clients, partition.alpha), classes)
        ends[:, 1:] = np.rint(images * shares.cumsum(1))
        ends[:, -1] = images  # what rounding may have left over
        held = np.diff(ends)
        whole = held.sum(0).min() >= partition.min_images
        if whole and (held > 0).sum(0).min() >= LEAST_CLASSES:
            return ends
    least = f"{partition.min_images} images and {LEAST_CLASSES} classes"
    problem = f"in {TRIES} draws there was always a client with fewer than {least}"
    fix = "Raise data.alpha, shots or ways, or lower data.min_images or num_clients"
    raise InputError("data.alpha", partition.alpha, problem, fix)
