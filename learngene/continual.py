"""What a sequence of tasks did to what was known: measures on the accuracy matrix.

The matrix R is lower triangular, a list of rows: R[i][j] is the accuracy, 0..1, on the test images
of task j after task i was learned, j <= i. It is class-incremental: every class known by then is
an answer that may be given, so accuracy on an old task also falls because later tasks add classes
to confuse it with. All measures take tasks as equals, whatever their numbers of test images.

Forward transfer (Lopez-Paz & Ranzato 2017) is not defined here: it needs the accuracy on a task
before it is learned, when the growing head has no output for its classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

Matrix = Sequence[Sequence[float]]


def average_accuracy(matrix: Matrix) -> float:
    """A_T = mean over j of R[T][j]: accuracy on a task after the last one.

    "ACC" of Lopez-Paz & Ranzato (NeurIPS 2017), A_k of Chaudhry et al. (ECCV 2018).
    """
    _check(matrix)
    return fmean(matrix[-1])


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
    _check(matrix)
    last = len(matrix) - 1
    if not last:
        return None
    return fmean(max(row[j] for row in matrix[j:last]) - matrix[last][j] for j in range(last))


def backward_transfer(matrix: Matrix) -> float | None:
    """BWT = mean over j < T of R[T][j] - R[j][j], -1..1; below 0 is forgetting.

    Lopez-Paz & Ranzato, "Gradient Episodic Memory for Continual Learning" (NeurIPS 2017). None
    with one task.
    """
    _check(matrix)
    last = len(matrix) - 1
    if not last:
        return None
    return fmean(matrix[last][j] - matrix[j][j] for j in range(last))


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


def _check(matrix: Matrix) -> None:
    """Raise ValueError unless row i has i + 1 entries and there is one."""
    lengths = [len(row) for row in matrix]
    if not lengths or lengths != list(range(1, len(lengths) + 1)):
        raise ValueError(f"rows of 1, 2, 3... accuracies are due, these have {lengths}")
