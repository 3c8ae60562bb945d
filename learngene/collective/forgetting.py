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


def check_growth(memory: str, growth: str) -> None:
    """Raise InputError for EWC on layers that widen: their Fisher was taken at another shape."""
    if STRATEGIES[memory].anchors and growth not in ("none", "equal"):
        raise InputError(
            "collective.growth",
            growth,
            f"collective.memory={memory} weighs every weight by a Fisher that was taken before "
            "the layers widened and does not fit them afterwards",
            "Write collective.growth=none",
        )


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


def average_accuracy(matrix: Matrix) -> float:
    """A_T = mean over j of R[T][j]: accuracy on a task after the last one.

    "ACC" of Lopez-Paz & Ranzato (NeurIPS 2017), A_k of Chaudhry et al. (ECCV 2018).
    """
    return fmean(matrix[_last(matrix)])


def average_incremental_accuracy(accuracies: Sequence[float]) -> float:
    """Mean of the accuracies after each task, each over all classes known by then.

    The single number of iCaRL (Rebuffi et al., CVPR 2017); the first task counts. It takes the
    accuracies over test images and not the matrix: tasks may have unequal numbers of classes.

    Args:
        accuracies: one a task, 0..1.

    Raises:
        ValueError: there is none.
    """
    if not accuracies:
        raise ValueError("no task was learned: there is no accuracy to average")
    return fmean(accuracies)


def forgetting(matrix: Matrix) -> float | None:
    """F_T = mean over j < T of (max over l < T of R[l][j]) - R[T][j], -1..1; less is better.

    Chaudhry et al., "Riemannian Walk for Incremental Learning" (ECCV 2018). None with one task.
    """
    last = _last(matrix)
    drops = [max(row[j] for row in matrix[j:last]) - matrix[last][j] for j in range(last)]
    return fmean(drops) if drops else None


def backward_transfer(matrix: Matrix) -> float | None:
    """BWT = mean over j < T of R[T][j] - R[j][j], -1..1; below 0 is forgetting.

    Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning" (NeurIPS 2017). None
    with one task.
    """
    last = _last(matrix)
    gains = [matrix[last][j] - matrix[j][j] for j in range(last)]
    return fmean(gains) if gains else None


def measures(matrix: Matrix, accuracies: Sequence[float]) -> dict[str, Any]:
    """The matrix and every measure on it, as ``results.json`` has them.

    Args:
        matrix: as above.
        accuracies: after each task, over the test images of all known classes.
    """
    return {
        "matrix": [list(row) for row in matrix],
        "average_accuracy": average_accuracy(matrix),
        "average_incremental_accuracy": average_incremental_accuracy(accuracies),
        "forgetting": forgetting(matrix),
        "backward_transfer": backward_transfer(matrix),
    }


def _last(matrix: Matrix) -> int:
    """Place of the last row; raises ValueError unless row i has i + 1 entries and there is one."""
    lengths = [len(row) for row in matrix]
    if not lengths or lengths != list(range(1, len(lengths) + 1)):
        raise ValueError(f"rows of 1, 2, 3... accuracies are due, these have {lengths}")
    return len(matrix) - 1
