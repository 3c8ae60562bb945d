"""Eq. 2-3 by hand, the threshold, and the measures against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from learngene.openworld import (
    UNKNOWN,
    auroc,
    calibrate,
    doubled_softmax_floor,
    measure,
    open_label,
    unknown_probability,
)
from tests.made import rng

LN = math.log
# softmax: (0.8, 0.1, 0.1), (0.2, 0.5, 0.3), (1/3, 1/3, 1/3)
LOGITS = torch.tensor([[LN(8), 0.0, 0.0], [LN(2), LN(5), LN(3)], [1.0, 1.0, 1.0]])


def test_eq_2():
    assert unknown_probability(LOGITS).tolist() == pytest.approx([0.2, 0.5, 2 / 3])


def test_eq_3():
    assert open_label(LOGITS, 0.55).tolist() == [0, 1, UNKNOWN]
    assert open_label(LOGITS, 0.1).tolist() == [UNKNOWN] * 3
    assert open_label(LOGITS[:2], 1.0).tolist() == [0, 1]
    certain = torch.tensor([[0.0, 0.0]])  # exactly one half: not above a threshold of one half
    assert open_label(certain, 0.5).tolist() != [UNKNOWN]


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


@pytest.mark.parametrize("seed", range(5))
def test_auroc_is_the_share_of_pairs_in_order(seed):
    drawn = rng(seed)
    known, unknown = drawn.integers(0, 6, 17) / 6, drawn.integers(1, 8, 9) / 6  # many ties
    pairs = [(u > k) + 0.5 * (u == k) for u in unknown for k in known]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
    assert auroc(unknown, known) == pytest.approx(1 - np.mean(pairs))


def test_auroc_ends():
    low, high = np.array([0.1, 0.2]), np.array([0.8, 0.9, 0.9])
    assert (auroc(low, high), auroc(high, low), auroc(low, low)) == (1.0, 0.0, 0.5)


def test_the_papers_thresholds_are_softmax_applied_twice():
    assert doubled_softmax_floor(64) == pytest.approx(0.958637, abs=1e-6)
    assert doubled_softmax_floor(100) == pytest.approx(0.973276, abs=1e-6)
    # rounded up at the fourth digit, which just lets a certain answer pass
    rounded = [math.ceil(doubled_softmax_floor(n) * 1e4) / 1e4 for n in (64, 100)]
    assert rounded == [0.9587, 0.9733]
    certain = torch.zeros(1, 64)
    certain[0, 3] = 1.0  # a first softmax that is certain
    assert unknown_probability(certain).item() == pytest.approx(doubled_softmax_floor(64), abs=1e-6)


def test_measure_by_hand():
    def sure(p: float, way: int) -> list[float]:  # softmax: p for ``way``
        row = [LN((1 - p) / 2)] * 3
        row[way] = LN(p)
        return row

    known = torch.tensor([sure(0.9, 0), sure(0.8, 1), sure(0.7, 2), sure(0.4, 0)])
    labels = torch.tensor([0, 1, 0, 0])  # right, right, wrong, right but called unknown
    unknown = torch.tensor([sure(0.5, 0), sure(0.45, 1), sure(0.85, 2)])
    found = measure(known, labels, unknown, 0.35)
    # open-world probability: known 0.1 0.2 0.3 0.6, unknown 0.5 0.55 0.15
    assert found["accepted"] == 3 / 4
    assert found["known_accuracy"] == 2 / 4
    assert found["closed_accuracy"] == 3 / 4
    assert found["precision"] == pytest.approx(2 / 3)
    assert found["recall"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["auroc"] == pytest.approx((3 + 3 + 1) / 12)
    assert (found["known_images"], found["open_world_images"]) == (4, 3)
    shares = found["histogram"]
    assert len(shares["edges"]) == 41 and shares["edges"][0] == 0 and shares["edges"][-1] == 1
    assert sum(shares["known"]) == pytest.approx(1) and max(shares["known"]) == 0.25
    assert sum(shares["open_world"]) == pytest.approx(1)


def test_measure_when_nothing_is_called_unknown():
    found = measure(LOGITS[:2], torch.tensor([0, 1]), LOGITS[2:], 0.9)
    assert (found["f1"], found["precision"], found["recall"]) == (0, 0, 0)
    assert found["accepted"] == 1.0
