"""Images divided among clients by a Dirichlet distribution: disjoint, repeatable, as alpha says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learngene.data.dataset import ImageDataset
from learngene.data.dirichlet import divide
from learngene.data.partition import Shard, check_leakage, draw_shard
from learngene.data.settings import DirichletPartition, ShardSettings
from learngene.errors import InputError

CLIENTS = 3
PART = DirichletPartition(alpha=1.0, clients=CLIENTS, min_images=2)
EVEN = replace(PART, clients=20, min_images=10)


def _draw(dataset: ImageDataset, client: int, seed: int = 5, **change: object) -> Shard:
    asked = {"ways": 3, "shots": 4, "partition": PART, **change}  # 36 images: 6 of each class
    return draw_shard(dataset, ShardSettings(seed=seed, **asked), client)  # type: ignore[arg-type]


def test_clients_divide_as_many_images_of_each_class(glyphs: ImageDataset) -> None:
    shards = [_draw(glyphs, client) for client in range(CLIENTS)]
    rows = np.concatenate([shard.train_rows for shard in shards])
    assert len(set(rows.tolist())) == len(rows) == 36  # nobody's image is another's
    labels, counts = np.unique(glyphs.train_labels[rows], return_counts=True)
    assert labels.tolist() == sorted(glyphs.class_split.novel) and set(counts.tolist()) == {6}
    for shard in shards:
        held = set(glyphs.train_labels[shard.train_rows].tolist())
        assert held == set(shard.classes) and len(held) == len(shard.classes) >= 2
        tests = np.flatnonzero(np.isin(glyphs.test_labels, shard.classes))
        assert np.array_equal(shard.test_rows, tests)
        first = glyphs.train_labels[shard.train_rows[: len(shard.classes)]]
        assert first.tolist() == list(shard.classes)  # a first image of every class comes first
    base = np.concatenate([glyphs.rows("train", c) for c in glyphs.class_split.base])
    assert check_leakage(glyphs, shards, base)["passed"]
    own = _draw(glyphs, 0, classes_from="open_world", shots=2, ways=2)
    assert set(own.classes) <= set(glyphs.class_split.open_world)


def test_the_seed_decides_and_lists_give_the_mean(glyphs: ImageDataset) -> None:
    def drawn(**change: object) -> list[list[int]]:
        return [_draw(glyphs, each, **change).train_rows.tolist() for each in range(CLIENTS)]

    assert drawn() == drawn() != drawn(seed=6)
    assert sum(map(len, drawn(ways=[2, 3, 4], shots=[5, 4, 3]))) == 30  # 10 + 12 + 12, 5 a class


def test_alpha_says_how_unlike_clients_are() -> None:
    def held(alpha: float) -> np.ndarray:  # (classes, clients)
        return np.diff(divide(20, 50, replace(EVEN, alpha=alpha), 0))

    few, middle, many = held(0.1), held(1.0), held(1e4)
    for counts in (few, middle, many):
        assert counts.min() >= 0 and (counts.sum(1) == 50).all() and counts.sum(0).min() >= 10
    assert 2 <= (few > 0).sum(0).mean() < 8 < (middle > 0).sum(0).mean() < 20
    assert many.min() >= 1 and many.max() <= 4  # 50 of each class among 20 clients: two or three
    # A class's largest share, at alpha=1 that of 20 uniform spacings: (1 + 1/2 + .. + 1/20) / 20.
    shares = [np.diff(divide(20, 50, replace(EVEN, alpha=1.0), seed)) / 50 for seed in range(40)]
    assert np.mean([share.max(1) for share in shares]) == pytest.approx(0.18, abs=0.015)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shots": 5}, "shots=5: clients divide 7 training images of each class, class . of"),
        ({"shots": 1, "ways": 1}, "Raise shots"),
        ({"partition": replace(PART, min_images=13)}, "data.alpha=1.0: in 1000 draws .* 13 images"),
        # Whole classes to single clients: six do not make two for each of four.
        ({"partition": replace(PART, alpha=1e-6, clients=4), "ways": 2}, "Raise data.alpha"),
    ],
)
def test_what_cannot_be_divided(glyphs: ImageDataset, change: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        _draw(glyphs, 0, **change)
