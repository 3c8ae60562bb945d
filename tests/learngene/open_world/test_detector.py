"""Eq. 2-3 by hand, the threshold, and the measures against brute force."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learngene.open_world.detector import (
    DISTANCES,
    SCORES,
    UNKNOWN,
    OpenSetDetector,
    calibrate,
    doubled_softmax_floor,
    fit_score,
    measure,
    open_label,
    openness,
    paper_thresholds,
    separation,
    unknown_probability,
)
from learngene.open_world.settings import OpenWorldSettings
from tests.helpers import rng, torch_rng

LN = math.log
# softmax: (0.8, 0.1, 0.1), (0.2, 0.5, 0.3), (1/3, 1/3, 1/3)
LOGITS = torch.tensor([[LN(8), 0.0, 0.0], [LN(2), LN(5), LN(3)], [1.0, 1.0, 1.0]])
NOTHING = (torch.empty(0, 2), torch.empty(0).long())  # features and labels of no image


def test_eq_2():
    assert unknown_probability(LOGITS).tolist() == pytest.approx([0.2, 0.5, 2 / 3])


def test_eq_3():
    def called(logits: Tensor, threshold: float) -> list[int]:
        return open_label(logits, unknown_probability(logits), threshold).tolist()

    assert called(LOGITS, 0.55) == [0, 1, UNKNOWN]
    assert called(LOGITS, 0.1) == [UNKNOWN] * 3
    assert called(LOGITS[:2], 1.0) == [0, 1]
    certain = torch.tensor([[0.0, 0.0]])  # exactly one half: not above a threshold of one half
    assert called(certain, 0.5) != [UNKNOWN]


@pytest.mark.parametrize("accept", [0.01, 0.5, 0.95, 0.99, 1.0])
@pytest.mark.parametrize("count", [1, 7, 20, 160])
def test_calibrate_accepts_the_share_and_no_image_more_than_needed(count, accept):
    known = rng(count).random(count)
    accepted = int((known <= calibrate(known, accept)).sum())
    assert accept * count <= accepted + 1e-9
    assert accepted <= math.ceil(accept * count) + 1


def test_calibrate_by_hand():
    assert calibrate(np.array([0.4, 0.1, 0.3, 0.2, 0.5]), 0.75) == 0.4
    assert calibrate(np.array([0.4, 0.1, 0.3, 0.2, 0.5]), 1.0) == 0.5


@pytest.mark.parametrize(("known", "accept"), [([], 0.9), ([0.1], 0.0), ([0.1], 1.1)])
def test_calibrate_refuses(known, accept):
    with pytest.raises(ValueError, match=f"cannot accept {accept} of {len(known)}"):
        calibrate(np.array(known), accept)


def test_the_papers_thresholds_are_softmax_applied_twice():
    assert doubled_softmax_floor(64) == pytest.approx(0.958637, abs=1e-6)
    assert doubled_softmax_floor(100) == pytest.approx(0.973276, abs=1e-6)
    # rounded up at the fourth digit, which just lets a certain answer pass
    rounded = [math.ceil(doubled_softmax_floor(n) * 1e4) / 1e4 for n in (64, 100)]
    assert rounded == [0.9587, 0.9733]
    certain = torch.zeros(1, 64)
    certain[0, 3] = 1.0  # a first softmax that is certain
    assert unknown_probability(certain).item() == pytest.approx(doubled_softmax_floor(64), abs=1e-6)


def of(*scores: float) -> tuple[Tensor, Tensor]:
    """Answers whose score ``by_feature`` is as given; every row of logits says class 0."""
    features = torch.tensor(scores)[:, None]
    return torch.tensor([[1.0, 0.0, 0.0]]).repeat(len(scores), 1), features


def by_feature(logits: Tensor, features: Tensor) -> Tensor:
    return features[:, 0]


def sure(p: float, way: int) -> list[float]:
    """Logits of three classes whose softmax is p for ``way``."""
    row = [LN((1 - p) / 2)] * 3
    row[way] = LN(p)
    return row


def test_measure_by_hand():
    known = torch.tensor([sure(0.9, 0), sure(0.8, 1), sure(0.7, 2), sure(0.4, 0)])
    labels = torch.tensor([0, 1, 0, 0])  # right, right, wrong, right but called unknown
    unknown = torch.tensor([sure(0.5, 0), sure(0.45, 1), sure(0.85, 2)])
    # open-world probability: known 0.1 0.2 0.3 0.6, unknown 0.5 0.55 0.15
    eq_2 = OpenSetDetector(fit_score("max_softmax", *NOTHING), 0.35)
    found = measure(eq_2, (known, NOTHING[0]), labels, (unknown, NOTHING[0]))
    assert found["accepted"] == 3 / 4
    assert found["known_accuracy"] == 2 / 4
    assert found["closed_accuracy"] == 3 / 4
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert (found["known_images"], found["open_world_images"]) == (4, 3)
    shares = found["histogram"]
    assert len(shares["edges"]) == 41
    assert sum(shares["known"]) == pytest.approx(1) and max(shares["known"]) == 0.25
    assert sum(shares["open_world"]) == pytest.approx(1)


def test_measure_when_nothing_is_called_unknown():
    found = measure(OpenSetDetector(by_feature, 0.9), of(0.1, 0.5), torch.tensor([0, 0]), of(0.9))
    assert (found["f1"], found["precision"], found["recall"]) == (0, 0, 0)
    assert found["accepted"] == 1.0


@pytest.mark.parametrize("spread", [1e-6, 1.0, 1e4, 0.0])
def test_the_histogram_holds_any_score_and_its_tails(spread):
    drawn = (spread * rng(1).standard_normal(500) - 7).tolist()
    far = 50 * spread - 7
    found = measure(OpenSetDetector(by_feature, 0.0), of(*drawn, far), torch.zeros(501), of(*drawn))
    edges = found["histogram"]["edges"]
    assert len(edges) == 41 and all(a < b for a, b in itertools.pairwise(edges))
    assert edges[-1] <= -7 + 5 * spread + (0.5 if spread == 0 else 0)  # not stretched by ``far``
    assert sum(found["histogram"]["known"]) == pytest.approx(1)
    assert sum(found["histogram"]["open_world"]) == pytest.approx(1)


def test_eq_2_orders_as_pytorch_oods_max_softmax():
    from pytorch_ood.detector import MaxSoftmax

    logits = torch.randn(50, 7, generator=torch_rng(1)) * 4
    theirs = MaxSoftmax.score(logits)  # - max p
    assert torch.allclose(unknown_probability(logits), 1 + theirs, atol=1e-6)


def gaussians(per_class: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Exemplars of three classes around three axes of five, and features around a fourth axis."""
    labels = torch.arange(3).repeat_interleave(per_class)
    noise = 0.1 * torch.randn(4 * per_class, 5, generator=torch_rng(2))
    axes = torch.eye(5)
    return axes[labels] + noise[: len(labels)], labels, axes[3] + noise[len(labels) :]


@pytest.mark.parametrize("name", SCORES)
def test_every_score_is_higher_for_what_is_unknown(name):
    features, labels, others = gaussians()
    logits = features[:, :3] * 9  # a cosine head on the class axes
    score = fit_score(name, features, labels)
    known, unknown = score(logits, features), score(others[:, :3] * 9, others)
    assert known.shape == (120,) and unknown.shape == (40,)
    found = separation(known, unknown, logits.argmax(1), labels)
    assert found["auroc"] > 0.99 and found["aupr_in"] > 0.99 and found["aupr_out"] > 0.97
    assert found["fpr95"] < 0.03 and found["oscr"] > 0.97


def test_logit_scores_by_hand():
    energy, largest = (fit_score(n, *NOTHING) for n in ("energy", "max_logit"))
    expected = [-LN(10), -LN(10), -1 - LN(3)]
    assert energy(LOGITS, NOTHING[0]).tolist() == pytest.approx(expected)
    assert largest(LOGITS, NOTHING[0]).tolist() == pytest.approx([-LN(8), -LN(5), -1])


@pytest.mark.parametrize("name", DISTANCES)
def test_distances_by_hand_and_blind_to_length(name):
    features, labels, others = gaussians()
    score = fit_score(name, features, labels)
    unit = (features / features.norm(dim=1, keepdim=True)).double()
    seen = (others / others.norm(dim=1, keepdim=True)).double()
    means = torch.stack([unit[labels == c].mean(0) for c in range(3)])

    def distance(centre: Tensor, scatter: Tensor) -> Tensor:
        apart = seen - centre
        return (apart @ torch.linalg.inv(scatter / len(unit)) * apart).sum(1)

    within, whole = unit - means[labels], unit - unit.mean(0)
    nearest = torch.stack([distance(mean, within.T @ within) for mean in means]).amin(0)
    relative = nearest - distance(unit.mean(0), whole.T @ whole)
    expected = nearest / 2 if name == "mahalanobis" else relative
    ours = score(NOTHING[0], others)
    assert torch.allclose(ours.double(), expected, rtol=1e-2)
    assert torch.allclose(score(NOTHING[0], 7 * others), ours, rtol=1e-3)


def test_scores_that_cannot_be_fitted():
    with pytest.raises(ValueError, match="no score softmax"):
        fit_score("softmax", *NOTHING)
    for name in DISTANCES:
        with pytest.raises(ValueError, match="needs exemplars"):
            fit_score(name, *NOTHING)


@pytest.mark.parametrize("seed", range(5))
def test_separation_against_brute_force(seed):
    drawn = rng(seed)
    known, unknown = drawn.integers(0, 6, 17) / 6, drawn.integers(1, 8, 9) / 6  # many ties
    right = drawn.random(17) < 0.7
    labels = torch.zeros(17).long()
    predicted = torch.from_numpy(~right).long()
    found = separation(torch.from_numpy(known), torch.from_numpy(unknown), predicted, labels)
    assert found["auroc"] == pytest.approx(
        np.mean([(u > k) + 0.5 * (u == k) for u in unknown for k in known])
    )
    enough = max(t for t in unknown if (unknown >= t).mean() >= 0.95)
    assert found["fpr95"] == pytest.approx((known >= enough).mean())
    # OSCR: an unknown image is accepted before a known and rightly named one, ties half.
    pairs = [
        r * ((u > k) + 0.5 * (u == k)) for u in unknown for k, r in zip(known, right, strict=True)
    ]
    assert found["oscr"] == pytest.approx(np.mean(pairs))
    assert found["oscr"] <= right.mean()


def test_openness():
    assert openness(64, 16) == pytest.approx(1 - math.sqrt(128 / 144))
    assert openness(5, 0) == 0


def test_the_threshold_is_calibrated_set_or_the_papers():
    held = of(*np.linspace(0, 1, 101).tolist())

    def threshold(**asked: Any) -> float:
        settings = OpenWorldSettings(score="max_softmax", **asked)
        return OpenSetDetector.fit(settings, of(), torch.zeros(0), held).threshold

    assert threshold(threshold="paper_cifar100") == 0.9587
    assert threshold(threshold="paper_imagenet100") == 0.9733
    assert threshold(threshold=-3) == -3.0
    # every row of ``held`` has the same logits, so any accepted share gives their probability
    assert threshold(accept=0.5) == pytest.approx(unknown_probability(held[0][:1]).item())


def label(detector: OpenSetDetector, logits: Tensor, features: Tensor) -> Tensor:
    return open_label(logits, detector.score(logits, features), detector.threshold)


def test_a_recogniser_labels_and_is_fitted_anew_when_classes_are_added():
    features, labels, others = gaussians()
    asked = OpenWorldSettings(score="mahalanobis", accept=0.95)
    held = (features[::4, :3], features[::4])
    before = OpenSetDetector.fit(asked, (features[:, :3], features), labels, held)
    called = label(before, others[:, :3], others)
    assert called.dtype == torch.int64 and (called == UNKNOWN).float().mean() > 0.9
    known = label(before, features[:, :3], features)
    assert (known == labels).float().mean() > 0.9 and (known == UNKNOWN).float().mean() < 0.1
    more = torch.cat([features, others])
    classes = torch.cat([labels, torch.full((len(others),), 3)])
    after = OpenSetDetector.fit(asked, (more[:, :4], more), classes, (more[::4, :4], more[::4]))
    assert (label(after, others[:, :4], others) == 3).float().mean() > 0.9
    assert torch.equal(label(before, others[:, :3], others), called)


def test_what_the_papers_thresholds_do():
    def rows(*certain: float) -> Tensor:  # logits of 64 classes whose largest probability is given
        made = torch.zeros(len(certain), 64)
        made[:, 5] = torch.tensor([LN(63 * p / (1 - p)) for p in certain])
        return made

    found = paper_thresholds(rows(0.9999999, 0.9, 0.1, 0.03), rows(0.04, 0.02))
    cifar = found["paper_cifar100"]
    assert cifar["threshold"] == 0.9587
    # 1 - p: 0, 0.1, 0.9, 0.97 against 0.96, 0.98
    assert cifar["one_softmax"] == {"known_accepted": 0.75, "open_world_found": 1.0}
    # twice: only an all but certain image stays below
    assert cifar["two_softmaxes"] == {"known_accepted": 0.25, "open_world_found": 1.0}
    assert found["paper_imagenet100"]["one_softmax"] == {
        "known_accepted": 1.0,
        "open_world_found": 0.5,
    }
    assert found["paper_imagenet100"]["two_softmaxes"]["known_accepted"] == 0.5
