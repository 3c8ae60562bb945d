"""How a collective keeps the classes gone by: four strategies under one training loop.

``rehearsal`` keeps exemplars, trains on them beside every later task and distils from the previous
stage (iCaRL's two means: Rebuffi et al., CVPR 2017). ``lwf`` distils on the new images alone
(Learning without Forgetting: Li & Hoiem, ECCV 2016). ``ewc`` sees no old image and hears no
previous stage: a quadratic penalty holds the weights that mattered (Kirkpatrick et al., PNAS 2017).
``none`` is plain fine-tuning, the lower end of the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from learngene.adaptation.retain import fisher_diagonal
from learngene.collective.settings import CollectiveSettings
from learngene.errors import InputError
from learngene.networks.collective import Collective


@dataclass(frozen=True)
class Strategy:
    """What a strategy may use while the collective learns a later task."""

    exemplars: bool  # images of the classes gone by
    distils: bool  # what the previous stage says of the images at hand
    anchors: bool  # a penalty on leaving the weights of the previous stage


STRATEGIES = {
    "rehearsal": Strategy(exemplars=True, distils=True, anchors=False),
    "lwf": Strategy(exemplars=False, distils=True, anchors=False),
    "ewc": Strategy(exemplars=False, distils=False, anchors=True),
    "none": Strategy(exemplars=False, distils=False, anchors=False),
}


def check_growth(collective: CollectiveSettings) -> None:
    """Raise InputError for layers that widen under EWC, whose Fisher was taken at another shape, or
    in residual blocks, which exist between equal widths: a widened one would lose its shortcut."""
    memory, growth, problem = collective.memory, collective.growth, ""
    if STRATEGIES[memory].anchors:
        problem = (
            f"collective.memory={memory} weighs every weight by a Fisher that was taken before "
            "the layers widened and does not fit them afterwards"
        )
    elif collective.block == "residual":
        problem = (
            "collective.block=residual adds a layer's input where it has as many channels as the "
            "output: a layer that widened would compute something else"
        )
    if problem and growth not in ("none", "equal"):
        raise InputError("collective.growth", growth, problem, "Write collective.growth=none")


def herd(features: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Choose exemplars by herding (iCaRL, algorithm 4): the mean of those chosen stays near mu.

    p_k = argmin over x of |mu - (phi(x) + sum over j < k of phi(p_j)) / k|, phi of length 1 and mu
    the mean of phi over the class. No image is chosen twice (the algorithm as printed leaves that
    open); among equals the first is taken.

    Args:
        features: (N, D), images of one class; brought to length 1 here.
        count: exemplars to choose.

    Returns:
        min(count, N) positions in ``features``, the best first: the first m are what a smaller
        ``count`` of m would choose.
    """
    phi = np.asarray(features, dtype=np.float64)
    phi = phi / np.maximum(np.linalg.norm(phi, axis=1, keepdims=True), 1e-12)  # as F.normalize
    mean, total = phi.mean(0), np.zeros(phi.shape[1])
    free = np.ones(len(phi), dtype=bool)
    chosen = np.empty(min(count, len(phi)), dtype=np.int64)
    for k in range(len(chosen)):
        distance = np.square(mean - (total + phi) / (k + 1)).sum(1)
        chosen[k] = np.where(free, distance, np.inf).argmin()
        free[chosen[k]] = False
        total += phi[chosen[k]]
    return chosen


def anchored(collective: Collective) -> dict[str, nn.Parameter]:
    """The parameters that EWC holds, by name: convolutions and norms of the thirteen layers.

    The head is free, since every task adds classes to it.
    """
    return dict(collective.units.named_parameters(prefix="units"))


def task_fisher(
    collective: Collective, batches: Iterable[Tensor], generator: torch.Generator
) -> list[Tensor]:
    """Fisher diagonal (Eq. 7) of the anchored parameters on a task's images, scaled to mean 1.

    The expectation over the model's labels is estimated with one label a image, drawn from the
    model's own p(y|x): one backward pass a batch and not one for every known class. With mean 1
    every task weighs the same however sure the model is, and ``collective.ewc_lambda`` is the
    stiffness that one task adds (as ``retain.normalise`` has it).

    Args:
        batches: images (B, C, H, W) on the collective's device.
        generator: the labels are drawn from it.

    Returns:
        One tensor for each of ``anchored``, in order, shaped like it.

    Raises:
        ValueError: the Fisher is zero everywhere.
    """
    collective.eval()
    layers = [m for m in collective.units.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    sums = [torch.zeros_like(p) for p in anchored(collective).values()]
    for x in batches:
        with torch.no_grad():
            likely = collective(x).softmax(1)
        labels = torch.multinomial(likely.cpu(), 1, generator=generator).squeeze(1).to(x.device)
        for total, part in zip(sums, fisher_diagonal(collective, layers, x, labels), strict=True):
            total.add_(part, alpha=len(x))
    mean = sum(float(total.sum()) for total in sums) / sum(total.numel() for total in sums)
    if mean <= 0:
        raise ValueError("the Fisher information is zero everywhere: nothing to weigh weights by")
    return [total.detach() / mean for total in sums]


Matrix = Sequence[Sequence[float]]


def measures(matrix: Matrix, accuracies: Sequence[float]) -> dict[str, Any]:
    """What is kept of the tasks gone by, as ``results.json`` has it; each measure -1..1.

    With R(i, j) the accuracy on task j after task i, and T the last task: ``average_accuracy`` is
    the mean over j of R(T, j) ("ACC" of Lopez-Paz & Ranzato, NeurIPS 2017);
    ``average_incremental_accuracy`` iCaRL's mean of the accuracies after each task (Rebuffi et al.,
    CVPR 2017); ``forgetting`` the mean over j < T of (max over l < T of R(l, j)) - R(T, j), less is
    better (Chaudhry et al., ECCV 2018); ``backward_transfer`` that of R(T, j) - R(j, j), below 0 is
    forgetting (Lopez-Paz & Ranzato). The latter two are None with one task.

    Args:
        matrix: rows of 1, 2, 3... accuracies, 0..1.
        accuracies: after each task over the test images of all known classes, which the matrix does
            not give: tasks may have unequal numbers of classes.

    Raises:
        ValueError: the rows have other lengths, or there is no task.
    """
    lengths = [len(row) for row in matrix]
    if not lengths or lengths != list(range(1, len(lengths) + 1)):
        raise ValueError(f"rows of 1, 2, 3... accuracies are due, these have {lengths}")
    *before, last = matrix
    gone = range(len(before))
    drops = [max(row[j] for row in before[j:]) - last[j] for j in gone]
    gains = [last[j] - matrix[j][j] for j in gone]
    return {
        "matrix": [list(row) for row in matrix],
        "average_accuracy": fmean(last),
        "average_incremental_accuracy": fmean(accuracies),
        "forgetting": fmean(drops) if drops else None,
        "backward_transfer": fmean(gains) if gains else None,
    }
