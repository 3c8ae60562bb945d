"""Known or unknown: the open-world probability, its label rule and its threshold (Eq. 2-3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

UNKNOWN = -1  # C_open of Eq. 3


def unknown_probability(logits: Tensor) -> Tensor:
    """Eq. 2: one minus the largest softmax probability; (N, classes) -> (N,), 0..1 - 1/classes."""
    return 1 - F.softmax(logits, dim=1).amax(dim=1)


def open_label(logits: Tensor, threshold: float) -> Tensor:
    """Eq. 3: the most probable class, or ``UNKNOWN`` above the threshold; (N,) int64."""
    best = logits.argmax(dim=1)
    best[unknown_probability(logits) > threshold] = UNKNOWN
    return best


def calibrate(known: NDArray[np.floating], accept: float) -> float:
    """The threshold under which the share ``accept`` of held-out known images lies.

    Args:
        known: open-world probabilities of known images that were never trained on, (N,).

    Raises:
        ValueError: there is none, or ``accept`` is not in 0..1.
    """
    if len(known) == 0 or not 0 < accept <= 1:
        raise ValueError(f"cannot accept {accept} of {len(known)} held-out images")
    return float(np.quantile(known, accept, method="higher"))


def auroc(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> float:
    """Probability that an unknown image scores above a known one; ties count half."""
    ranks = rankdata(np.concatenate([known, unknown]))
    n, m = len(known), len(unknown)
    return float((ranks[n:].sum() - m * (m + 1) / 2) / (n * m))


def measure(known_logits: Tensor, known_labels: Tensor, unknown_logits: Tensor,
            threshold: float) -> dict:  # fmt: skip
    """What the threshold does to test images of known and of open-world classes.

    Args:
        known_labels: (N,), positions in the head; the logits are (N, classes) and (M, classes).

    Returns:
        threshold; auroc; f1 (unknown is the positive class); precision; recall; accepted (share
        of known images called known); known_accuracy (share of known images accepted and rightly
        named, Eq. 3); closed_accuracy (rightly named, threshold or not); histogram {edges, known,
        open_world} of the open-world probability, in shares.
    """
    known = unknown_probability(known_logits).numpy()
    unknown = unknown_probability(unknown_logits).numpy()
    called = open_label(known_logits, threshold)
    found, false = int((unknown > threshold).sum()), int((known > threshold).sum())
    precision = found / max(1, found + false)
    recall = found / len(unknown)
    edges = np.linspace(0, 1, 41)
    return {
        "threshold": threshold,
        "auroc": auroc(known, unknown),
        "f1": 2 * precision * recall / max(1e-12, precision + recall),
        "precision": precision,
        "recall": recall,
        "accepted": 1 - false / len(known),
        "known_accuracy": float((called == known_labels).float().mean()),
        "closed_accuracy": float((known_logits.argmax(1) == known_labels).float().mean()),
        "known_images": len(known),
        "open_world_images": len(unknown),
        "histogram": {
            "edges": edges.tolist(),
            "known": (np.histogram(known, edges)[0] / len(known)).tolist(),
            "open_world": (np.histogram(unknown, edges)[0] / len(unknown)).tolist(),
        },
    }


def doubled_softmax_floor(classes: int) -> float:
    """Smallest value of Eq. 2 when softmax is applied twice: 1 - e / (e + N - 1).

    The paper's thresholds are this number, rounded up: 0.95864 for N = 64 (the paper: 0.9587),
    0.97328 for N = 100 (the paper: 0.9733).
    """
    e = float(torch.e)
    return 1 - e / (e + classes - 1)
