from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from learngene.data.augment import to_batch
from learngene.data.dataset import ImageDataset
from learngene.data.partition import Shard, check_leakage, draw_shard, read_shard
from learngene.data.settings import ShardSettings
from learngene.errors import InputError


def _draw(dataset: ImageDataset, client: int = 0, **change: object) -> Shard:
    asked = {"ways": 3, "shots": 4, "seed": 5, **change}
    return draw_shard(dataset, ShardSettings(**asked), client)  # type: ignore[arg-type]


def _base_rows(dataset: ImageDataset) -> np.ndarray:
    return np.concatenate([dataset.rows("train", index) for index in dataset.class_split.base])


def test_rows(glyphs: ImageDataset) -> None:
    for split, labels in (("train", glyphs.train_labels), ("test", glyphs.test_labels)):
        for index in range(20):
            assert np.array_equal(glyphs.rows(split, index), np.flatnonzero(labels == index))


def test_a_shard_holds_what_it_says(glyphs: ImageDataset) -> None:
    for client in range(10):
        shard = _draw(glyphs, client)
        assert len(set(shard.classes)) == 3 and set(shard.classes) <= set(glyphs.class_split.novel)
        assert len(set(shard.train_rows.tolist())) == 12
        assert glyphs.train_labels[shard.train_rows].tolist() == list(shard.classes) * 4
        tests = np.flatnonzero(np.isin(glyphs.test_labels, shard.classes))
        assert np.array_equal(shard.test_rows, tests)
    own = _draw(glyphs, classes_from="open_world")
    assert set(own.classes) <= set(glyphs.class_split.open_world)


def test_fewer_shots_and_ways_are_a_prefix(glyphs: ImageDataset) -> None:
    more = _draw(glyphs, shots=6, ways=5)
    for shots in range(1, 6):
        fewer = _draw(glyphs, shots=shots, ways=5)
        assert fewer.classes == more.classes
        assert np.array_equal(fewer.train_rows, more.train_rows[: shots * 5])
    narrow = _draw(glyphs, shots=6, ways=2)
    assert narrow.classes == more.classes[:2]
    columns = more.train_rows.reshape(6, 5)[:, :2]
    assert np.array_equal(narrow.train_rows.reshape(6, 2), columns)


def test_queries_are_drawn_like_shots_from_all_images_of_a_class(glyphs: ImageDataset) -> None:
    trained = len(glyphs.train_labels)
    every = {i: set(glyphs.all_rows(i).tolist()) for i in glyphs.class_split.novel}
    for client in range(5):
        shard = _draw(glyphs, client, queries=3)
        shots, queries = shard.rows(glyphs)
        assert shots.shape == (12,) and queries.shape == (9,)
        assert len({*shots.tolist(), *queries.tolist()}) == 21  # no image twice
        for rows, each in ((shots, 4), (queries, 3)):
            labels = glyphs.take("labels", rows)
            assert labels.tolist() == list(shard.classes) * each
            assert set(rows.tolist()) <= set().union(*(every[c] for c in shard.classes))
    both = [_draw(glyphs, client, queries=3).rows(glyphs) for client in range(20)]
    for kind in (0, 1):  # shots and queries alike: once training, once test images of the dataset
        assert {bool(row >= trained) for rows in both for row in rows[kind]} == {True, False}
    one, four = (_draw(glyphs, shots=shots, queries=3) for shots in (1, 4))
    assert np.array_equal(one.train_rows, four.train_rows[:3])
    assert np.array_equal(one.test_rows, four.test_rows)


def test_the_images_of_a_pooled_shard_are_those_of_its_rows(glyphs: ImageDataset) -> None:
    shard = _draw(glyphs, client=1, queries=5)
    data, every = read_shard(glyphs, shard, torch.device("cpu")), len(glyphs.train_images)
    pixels = np.concatenate([glyphs.train_images, glyphs.test_images])
    for x, rows in ((data.train_x, shard.train_rows), (data.test_x, shard.test_rows)):
        assert torch.equal(x, to_batch(pixels[rows], torch.device("cpu")))
    assert (shard.test_rows < every).any() and (shard.test_rows >= every).any()
    assert data.test_y.tolist() == [0, 1, 2] * 5


def test_a_query_that_is_a_shot_or_of_base_leaks(glyphs: ImageDataset) -> None:
    shard, base = _draw(glyphs, queries=3), _base_rows(glyphs)
    assert check_leakage(glyphs, [shard], base)["passed"]
    of_both = replace(shard, test_rows=np.append(shard.test_rows, shard.train_rows[0]))
    assert check_leakage(glyphs, [of_both], base)["shard_test_overlap"] == 1
    content = glyphs.take("hashes", shard.test_rows[:1])[0]
    dataset = _planted(glyphs, "train_hashes", int(base[3]), content)
    found = check_leakage(dataset, [shard], base)
    assert (found["test_base_overlap"], found["passed"]) == (1, False)


def test_seed_and_client_decide(glyphs: ImageDataset) -> None:
    assert np.array_equal(_draw(glyphs).train_rows, _draw(glyphs).train_rows)
    seen = {
        tuple(_draw(glyphs, client, seed=s).train_rows) for client in range(5) for s in range(5)
    }
    assert len(seen) == 25
    for varied in ("client", "seed"):  # classes, too, not only images of them
        assert len({_draw(glyphs, **{varied: n}).classes for n in range(10)}) > 5, varied


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"ways": 50}, "ways=50: a client needs 50 novel classes, glyphs has 6. Lower ways"),
        ({"ways": 5, "classes_from": "open_world"}, "5 open-world classes, glyphs has 4"),
        ({"shots": 7}, r"a client needs 7 training images of each class, class . of glyphs has 6"),
        ({"queries": 6}, r"a client needs 4 \+ 6 \(queries\) images of each class, .* has 9"),
        ({"shots": 0}, "shots=0"),
        ({"ways": 0}, "ways=0"),
        ({"classes_from": "base"}, "data.clients_from=base"),
    ],
)  # fmt: skip
def test_too_much(glyphs: ImageDataset, change: dict, says: str) -> None:
    with pytest.raises(InputError, match=says):
        _draw(glyphs, **change)


def test_nothing_leaks(glyphs: ImageDataset) -> None:
    shards = [_draw(glyphs, client) for client in range(8)]
    found = check_leakage(glyphs, shards, _base_rows(glyphs))
    held = len({row for s in shards for row in s.train_rows.tolist()})
    tested = len({row for s in shards for row in s.test_rows.tolist()})
    assert found == {
        "classes_disjoint": True,
        "shard_test_overlap": 0,
        "shard_base_overlap": 0,
        "test_base_overlap": 0,
        "duplicates_dropped": 0,
        "images_checked": 60 + held + tested,
        "passed": True,
    }


def test_one_shard_at_a_time_is_held(glyphs: ImageDataset) -> None:
    alive: list[weakref.ref] = []

    def drawn() -> Iterator[Shard]:
        for client in range(5):
            assert sum(each() is not None for each in alive) <= 1
            shard = _draw(glyphs, client)
            alive.append(weakref.ref(shard))
            yield shard
            del shard

    listed = [_draw(glyphs, client) for client in range(5)]
    base = _base_rows(glyphs)
    assert check_leakage(glyphs, drawn(), base) == check_leakage(glyphs, listed, base)


def _planted(dataset: ImageDataset, into: str, row: int, content: np.void) -> ImageDataset:
    hashes = getattr(dataset, into).copy()
    hashes[row] = content
    return replace(dataset, **{into: hashes})


def test_an_image_in_shard_and_test(glyphs: ImageDataset) -> None:
    shard = _draw(glyphs)
    content = glyphs.train_hashes[shard.train_rows[2]]
    dataset = _planted(glyphs, "test_hashes", int(shard.test_rows[0]), content)
    found = check_leakage(dataset, [shard], _base_rows(dataset))
    assert not found["passed"] and found["shard_test_overlap"] == 1
    assert (found["shard_base_overlap"], found["test_base_overlap"]) == (0, 0)


def test_an_image_in_base_too(glyphs: ImageDataset) -> None:
    shard, base = _draw(glyphs), _base_rows(glyphs)
    content = glyphs.train_hashes[base[3]]
    dataset = _planted(glyphs, "train_hashes", int(shard.train_rows[1]), content)
    found = check_leakage(dataset, [shard], base)
    assert (found["shard_base_overlap"], found["passed"]) == (1, False)
    dataset = _planted(glyphs, "test_hashes", int(shard.test_rows[1]), content)
    found = check_leakage(dataset, [shard], base)
    assert (found["test_base_overlap"], found["passed"]) == (1, False)


def test_classes_where_they_must_not_be(glyphs: ImageDataset) -> None:
    shard, base = _draw(glyphs), _base_rows(glyphs)
    trained_on_novel = np.append(base, glyphs.rows("train", glyphs.class_split.novel[0])[:1])
    of_base = replace(shard, classes=(glyphs.class_split.base[0], *shard.classes[1:]))
    foreign = replace(shard, test_rows=glyphs.rows("test", glyphs.class_split.base[0]))
    for shards, rows in (([shard], trained_on_novel), ([of_base], base), ([foreign], base)):
        found = check_leakage(glyphs, shards, rows)
        assert not found["classes_disjoint"] and not found["passed"]


def test_open_world_classes_that_are_learned_count_as_base(tiny_dataset):
    class_split = tiny_dataset.class_split
    rows = np.concatenate(
        [tiny_dataset.rows("train", c) for c in (*class_split.base, *class_split.open_world)]
    )

    def shard(classes_from):
        return draw_shard(tiny_dataset, ShardSettings(3, 2, 0, classes_from), 0)

    assert check_leakage(tiny_dataset, [shard("novel")], rows, with_open_world=True)["passed"]
    assert not check_leakage(tiny_dataset, [shard("novel")], rows)["passed"]
    assert not check_leakage(tiny_dataset, [shard("open_world")], rows, with_open_world=True)[
        "passed"
    ]


def test_clients_of_other_ways_and_shots(glyphs: ImageDataset) -> None:
    shards = [_draw(glyphs, client, ways=[2, 5], shots=[1, 3, 6]) for client in range(6)]
    assert [len(each.classes) for each in shards] == [2, 5, 2, 5, 2, 5]
    assert [len(each.train_rows) for each in shards] == [2, 15, 12, 5, 6, 30]
    # A client's shard is the one that it has where all have its numbers.
    assert np.array_equal(shards[1].train_rows, _draw(glyphs, 1, ways=5, shots=3).train_rows)
    with pytest.raises(InputError, match="shots=7"):
        _draw(glyphs, 1, shots=[1, 7])
