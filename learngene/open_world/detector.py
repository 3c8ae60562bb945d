"""Known or unknown: scores, the threshold and the label rule (Eq. 2-3, definition 1).

A score says how unknown an image looks, higher = more unknown. Eq. 2 is ``max_softmax``; the others
come from pytorch-ood. An ``OpenSetDetector`` is a score with a threshold: when the
collective learns further classes, another one is fitted.

pytorch-ood is imported where it is used: with torchvision, which it draws in, that takes seconds,
and a client needs neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from learngene.open_world.settings import OpenWorldSettings

UNKNOWN = -1  # C_open of Eq. 3
DISTANCES = ("mahalanobis", "relative_mahalanobis")  # fitted on exemplars
SCORES = ("max_softmax", "max_logit", "energy", *DISTANCES)
# Both exceed what Eq. 2 gives to most images: see ``doubled_softmax_floor``.
PAPER_THRESHOLDS = {"paper_cifar100": 0.9587, "paper_imagenet100": 0.9733}

# (logits (N, classes), features (N, D)) -> how unknown, (N,)
Score = Callable[[Tensor, Tensor], Tensor]
Answers = tuple[Tensor, Tensor]  # of the collective: logits (N, classes), features (N, D)


def unknown_probability(logits: Tensor) -> Tensor:
    """Eq. 2: one minus the largest softmax probability; (N, classes) -> (N,), 0..1 - 1/classes."""
    return 1 - F.softmax(logits, dim=1).amax(dim=1)


def open_label(logits: Tensor, unknown: Tensor, threshold: float) -> Tensor:
    """Eq. 3: the most probable class, or ``UNKNOWN`` where the score (N,) exceeds the threshold:
    (N, classes) -> (N,) int64, positions in the head or ``UNKNOWN``."""
    best = logits.argmax(dim=1)
    best[unknown > threshold] = UNKNOWN
    return best


def fit_score(name: str, features: Tensor, labels: Tensor) -> Score:
    """A score as a function of the collective's answers.

    Args:
        name: one of ``SCORES``: 1 - max p (Eq. 2), - max logit, - log sum exp of the logits, and
            the distances to the nearest class mean, Mahalanobis' (Lee et al. 2018) and its excess
            over the distance to the mean of all (Ren et al. 2021). Distances are taken between
            features of length 1, since the collective's classifier sees nothing of their length.
        features: of exemplars, (E, D); only distances look at them.
        labels: of the same, (E,): every position of the head must occur.

    Raises:
        ValueError: there is no such score, or a distance has no exemplars.
    """
    from pytorch_ood.detector import RMD, EnergyBased, Mahalanobis, MaxLogit

    if name in DISTANCES:
        if len(features) == 0:
            raise ValueError(f"{name} needs exemplars, and the memory holds none")
        detector = (Mahalanobis if name == "mahalanobis" else RMD)(None)
        count = len(features)  # pytorch-ood does not divide the scatter by it
        detector.fit_features(F.normalize(features), labels)
        return lambda logits, features: count * detector.predict_features(F.normalize(features))
    plain: dict[str, Callable[[Tensor], Tensor]] = {
        "max_softmax": unknown_probability,
        "max_logit": MaxLogit.score,
        "energy": EnergyBased.score,
    }
    if name not in plain:
        raise ValueError(f"there is no score {name}, there are {', '.join(SCORES)}")
    return lambda logits, features: plain[name](logits)


def calibrate(known: NDArray[np.floating], accept: float) -> float:
    """The threshold under which the share ``accept`` of the scores (N,) lies, of known images that
    were never trained on.

    Raises:
        ValueError: there is none, or ``accept`` is not in 0..1.
    """
    if len(known) == 0 or not 0 < accept <= 1:
        raise ValueError(f"cannot accept {accept} of {len(known)} held-out images")
    return float(np.quantile(known, accept, method="higher"))


@dataclass(frozen=True)
class OpenSetDetector:
    """Eq. 3 at one moment: a fitted score and its threshold."""

    score: Score
    threshold: float

    @classmethod
    def fit(
        cls, settings: OpenWorldSettings, exemplars: Answers, labels: Tensor, held_out: Answers
    ) -> OpenSetDetector:
        """Fit the score on exemplars and find the threshold.

        Args:
            exemplars: logits and features of E known images; see ``fit_score``.
            labels: of the same, (E,).
            held_out: of known images that were never trained on; ``calibrated`` looks at them.

        Raises:
            ValueError: as ``fit_score`` and ``calibrate``.
        """
        score = fit_score(settings.score, exemplars[1], labels)
        if settings.threshold == "calibrated":
            return cls(score, calibrate(score(*held_out).numpy(), settings.accept))
        return cls(score, float(PAPER_THRESHOLDS.get(settings.threshold, settings.threshold)))


def separation(known: Tensor, unknown: Tensor, predicted: Tensor, labels: Tensor) -> dict:
    """How well a score separates known from unknown images, whatever the threshold.

    Args:
        known: scores of known images, (N,).
        unknown: scores of the others, (M,).
        predicted: classes of the known images, (N,), as positions in the head.
        labels: their true ones, (N,).

    Returns:
        auroc; aupr_out and aupr_in (unknown, known images as the positive class; pytorch-ood's area
        by trapezoids, which is not average precision: some 0.001 beside it); fpr95 (share of
        known images called unknown at the threshold that finds 95 % of the unknown ones); oscr
        (area under the share of known images accepted and rightly named over the share of unknown
        images accepted: at most the closed-set accuracy).
    """
    from pytorch_ood.metrics import functional as metrics

    scores = torch.cat([known, unknown])
    nothing = torch.full((len(unknown),), UNKNOWN)  # pytorch-ood takes labels below 0 as unknown
    truth = torch.cat([labels, nothing])
    return {
        "auroc": float(metrics.auroc(scores, truth)),
        "aupr_in": float(metrics.aupr(scores, truth, positive="id")),
        "aupr_out": float(metrics.aupr(scores, truth, positive="ood")),
        "fpr95": float(metrics.fpr_at_tpr(scores, truth, 0.95)),
        "oscr": float(metrics.oscr_score(scores, torch.cat([predicted, nothing]), truth)),
    }


def openness(known: int, unknown: int) -> float:
    """Of a test with so many known and unknown classes (Scheirer et al. 2013); 0 = closed."""
    from pytorch_ood.metrics.functional import calc_openness

    return float(calc_openness(known, known + unknown, known))


def measure(detector: OpenSetDetector, known: Answers, labels: Tensor, unknown: Answers) -> dict:
    """What the threshold does to test images of known and of open-world classes.

    Args:
        known: logits and features of N images of known classes.
        labels: their positions in the head, (N,).
        unknown: logits and features of M images of open-world classes.

    Returns:
        threshold; f1 (unknown is the positive class); precision; recall; accepted (share of known
        images called known); known_accuracy (share of known images accepted and rightly named,
        Eq. 3); closed_accuracy (rightly named, threshold or not); histogram {edges, known,
        open_world} of the score, in shares, whose outermost bins hold the tails.
    """
    threshold = detector.threshold
    known_scores, unknown_scores = detector.score(*known), detector.score(*unknown)
    named = open_label(known[0], known_scores, threshold)
    hits, false_positives = int((unknown_scores > threshold).sum()), int((named == UNKNOWN).sum())
    precision = hits / max(1, hits + false_positives)
    recall = hits / len(unknown_scores)
    return {
        "threshold": threshold,
        "f1": 2 * precision * recall / max(1e-12, precision + recall),
        "precision": precision,
        "recall": recall,
        "accepted": 1 - false_positives / len(named),
        "known_accuracy": float((named == labels).float().mean()),
        "closed_accuracy": float((known[0].argmax(1) == labels).float().mean()),
        "known_images": len(named),
        "open_world_images": len(unknown_scores),
        "histogram": _histogram(known_scores.numpy(), unknown_scores.numpy()),
    }


def _histogram(known: NDArray[np.floating], unknown: NDArray[np.floating]) -> dict:
    """Shares in 40 bins between the 0.2th and the 99.8th percentile of all scores."""
    low, high = np.quantile(np.concatenate([known, unknown]), [0.002, 0.998])
    known, unknown = (np.clip(part, low, high).astype(float) for part in (known, unknown))
    edges = np.histogram_bin_edges([low, high], bins=40)
    return {
        "edges": edges.tolist(),
        "known": (np.histogram(known, edges)[0] / len(known)).tolist(),
        "open_world": (np.histogram(unknown, edges)[0] / len(unknown)).tolist(),
    }


def doubled_softmax_floor(classes: int) -> float:
    """Smallest value of Eq. 2 when softmax is applied twice: 1 - e / (e + N - 1).

    The paper's thresholds are this number, rounded up: 0.95864 for N = 64 (the paper: 0.9587),
    0.97328 for N = 100 (the paper: 0.9733).
    """
    e = float(torch.e)
    return 1 - e / (e + classes - 1)


def paper_thresholds(known: Tensor, unknown: Tensor) -> dict[str, dict]:
    """What the paper's thresholds do with Eq. 2 as written and with softmax applied twice.

    Args:
        known: logits of known images, (N, classes).
        unknown: logits of the others, (M, classes).

    Returns:
        for every preset {threshold, one_softmax, two_softmaxes}, the latter two each
        {known_accepted, open_world_found}: shares of the known images that are called known and
        of the open-world images that are called unknown.
    """
    forms: dict[str, Callable[[Tensor], Tensor]] = {
        "one_softmax": unknown_probability,
        "two_softmaxes": lambda logits: unknown_probability(F.softmax(logits, dim=1)),
    }
    return {
        preset: {"threshold": threshold}
        | {
            form: {
                "known_accepted": float((score(known) <= threshold).float().mean()),
                "open_world_found": float((score(unknown) > threshold).float().mean()),
            }
            for form, score in forms.items()
        }
        for preset, threshold in PAPER_THRESHOLDS.items()
    }
