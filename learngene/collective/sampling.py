"""Which images a collective is trained on, in which order, at which rate."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from learngene.data.dataset import ImageDataset
from learngene.seeding import generator


def hold_out(
    dataset: ImageDataset, seed: int, per_class: int
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Rows of every base class to train on, and ``per_class`` kept for the open-world threshold."""
    train, held = {}, []
    for c in dataset.class_split.base:
        rows = generator(seed, "calibration", client=c).permutation(dataset.rows("train", c))
        held.append(rows[:per_class])
        train[c] = rows[per_class:]
    return train, np.concatenate(held)


def class_positions(rows: Sequence[np.ndarray]) -> Tensor:
    """Labels (N,) of images that lie class by class: the place of each image in ``rows``."""
    counts = torch.tensor([len(its) for its in rows])
    return torch.repeat_interleave(torch.arange(len(rows)), counts)


def one_cycle(progress: float, warm_up: float = 0.1) -> float:
    """Learning-rate factor at ``progress`` 0..1 of a task: linear warm-up, then half a cosine."""
    if progress < warm_up:
        return (progress + 0.01) / (warm_up + 0.01)
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def epoch_positions(
    labels: np.ndarray,
    old: int,
    limit: int | None,
    order: np.random.Generator,
    *,
    balance: bool = False,
) -> np.ndarray:
    """Positions of one epoch, shuffled: every new image, and exemplars of the old classes.

    Args:
        labels: classes of the images at hand, (N,); the first ``old`` ones are old.
        limit: of each old class as many exemplars, drawn anew; None: all of them.
        balance: a class with fewer images than the old class that has most (of these ``limit`` at
            most) is shown that often all the same, its images as evenly as can be. The open-world
            cycle needs it: its classes come with a few dozen labelled images beside hundreds of
            exemplars, and a collective that weighs images alike does not learn to name them.
    """
    new = np.flatnonzero(labels >= old)
    exemplars = [order.permutation(np.flatnonzero(labels == c))[:limit] for c in range(old)]
    parts = [new, *exemplars]
    if balance:
        most = max((len(part) for part in exemplars), default=0)
        for part in [*exemplars, *(new[labels[new] == c] for c in np.unique(labels[new]))]:
            if 0 < len(part) < most:
                parts.append(np.resize(order.permutation(part), most - len(part)))
    return order.permutation(np.concatenate(parts))
