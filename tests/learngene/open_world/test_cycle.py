"""The open-world cycle: streams without repeats, labels within the budget, honest accounts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learngene.open_world.cycle import (
    Oracle,
    Stream,
    account,
    choose_classes,
    draw_stream,
    encounter,
    gather_labels,
    split_held_out,
)
from learngene.open_world.settings import OpenWorldSettings
from tests.helpers import rng

ASKED = OpenWorldSettings(
    cycles=3, labels_per_cycle=5, classes_per_cycle=2, images_to_add=3, known_share=0.5,
    cycle_consolidate_epochs=1,
)  # fmt: skip


def test_streams_share_no_image_and_hold_every_open_world_image_once(tiny_dataset):
    streams = [draw_stream(tiny_dataset, ASKED, cycle, seed=1) for cycle in range(3)]
    for of_test in (True, False):
        rows = np.concatenate([s.rows[s.test == of_test] for s in streams])
        assert len(set(rows.tolist())) == len(rows)
    met = np.concatenate([s.rows[~s.test] for s in streams])
    class_split = tiny_dataset.class_split
    expected = np.concatenate([tiny_dataset.rows("train", c) for c in class_split.open_world])
    assert sorted(met.tolist()) == sorted(expected.tolist())
    for stream in streams:
        assert set(stream.truth[stream.test]) <= set(class_split.base)
        assert set(stream.truth[~stream.test]) == set(class_split.open_world)
        assert abs(stream.test.mean() - 0.5) < 0.05
        assert stream.test[: len(stream.test) // 2].any()  # mixed, not one after the other


def test_a_stream_is_drawn_from_the_seed(tiny_dataset):
    first, again = (draw_stream(tiny_dataset, ASKED, 1, seed=1) for _ in range(2))
    assert (first.rows == again.rows).all() and (first.test == again.test).all()
    other = draw_stream(tiny_dataset, ASKED, 1, seed=2)
    assert not np.array_equal(first.rows, other.rows)


def test_known_share_zero_is_a_stream_of_unknown_images(tiny_dataset):
    assert not draw_stream(tiny_dataset, replace(ASKED, known_share=0.0), 0, seed=1).test.any()


@pytest.mark.parametrize(("share", "known", "of_a_class"), [(0.6, 24, 4), (0.8, 32, 2)])
def test_the_known_share_is_met_where_base_images_are_few(tiny_dataset, share, known, of_a_class):
    """A cycle has 32 base images and 4 of each of 4 open-world classes."""
    stream = draw_stream(tiny_dataset, replace(ASKED, known_share=share), 0, seed=1)
    assert int(stream.test.sum()) == known
    counts = np.unique(stream.truth[~stream.test], return_counts=True)[1]
    assert counts.tolist() == [of_a_class] * 4


def test_there_is_no_cycle_beyond_the_last(tiny_dataset):
    with pytest.raises(ValueError, match="cycle 3 of 3"):
        draw_stream(tiny_dataset, ASKED, 3, seed=1)


@pytest.fixture
def eight(tiny_dataset) -> Stream:
    """Base test images and open-world training images in turn."""
    base = tiny_dataset.rows("test", tiny_dataset.class_split.base[0])[:4]
    unknown = np.concatenate([tiny_dataset.rows("train", c)[:2]
                              for c in tiny_dataset.class_split.open_world[:2]])  # fmt: skip
    rows = np.stack([base, unknown], axis=1).ravel().astype(np.int64)
    return Stream(tiny_dataset, np.array([True, False] * 4), rows)


def test_the_most_unknown_are_labelled_first_and_the_budget_holds(eight, tiny_dataset):
    #                  base unkn base unkn base unkn base unkn
    scores = np.array([0.9, 0.8, 0.1, 0.7, 0.2, 0.3, 0.6, 0.95])
    asked: list[np.ndarray] = []

    class Spy(Oracle):
        def label(self, stream, positions):
            asked.append(positions)
            return super().label(stream, positions)

    met = encounter(eight, scores, 0.5, tiny_dataset.class_split.base, Spy(), budget=3)
    assert met.called.tolist() == [7, 0, 1, 3, 6] and met.sent.tolist() == [7, 0, 1]
    assert len(asked) == 1 and asked[0].tolist() == [7, 0, 1]
    first, second = tiny_dataset.class_split.open_world[:2]
    assert met.labels.tolist() == [second, tiny_dataset.class_split.base[0], first]
    assert met.counts == {
        "known_images": 4,
        "unknown_images": 4,
        "called_unknown": 5,
        "known_called_unknown": 2,
        "unknown_missed": 1,
        "labels_spent": 3,
        "known_sent": 1,
        "called_beyond_budget": 2,
    }


def test_a_score_at_the_threshold_is_known(eight, tiny_dataset):
    met = encounter(eight, np.full(8, 0.5), 0.5, tiny_dataset.class_split.base, Oracle(), budget=3)
    assert len(met.called) == 0 == met.counts["labels_spent"]
    assert met.counts["unknown_missed"] == 4


def test_labels_gather_over_cycles_and_known_ones_are_not_kept(eight, tiny_dataset):
    base, (first, second) = tiny_dataset.class_split.base, tiny_dataset.class_split.open_world[:2]
    met = encounter(eight, np.arange(8.0), -1.0, base, Oracle(), budget=8)
    pool = gather_labels({}, eight, met, base)
    assert {c: sorted(rows.tolist()) for c, rows in pool.items()} == {
        first: sorted(eight.rows[[1, 3]].tolist()),
        second: sorted(eight.rows[[5, 7]].tolist()),
    }
    again = gather_labels(pool, eight, met, [*base, first])
    assert len(again[first]) == 2 and len(again[second]) == 4
    assert len(pool[second]) == 2  # what was handed in is not changed


def test_classes_with_the_most_images_are_taken_in_first():
    pool = {7: np.arange(3), 4: np.arange(9), 5: np.arange(2), 1: np.arange(3)}
    assert choose_classes(pool, ASKED) == [4, 1]
    assert choose_classes(pool, replace(ASKED, classes_per_cycle=9)) == [4, 1, 7]
    assert choose_classes({}, ASKED) == []


@pytest.mark.parametrize(("count", "held"), [(2, 1), (10, 1), (30, 3)])
def test_some_labelled_images_are_kept_for_the_threshold(count, held):
    train, kept = split_held_out(np.arange(count), rng())
    assert len(kept) == held and len(train) == count - held
    assert sorted([*train, *kept]) == list(range(count))


def test_those_kept_are_not_the_ones_that_looked_most_unknown():
    """Images come with these first."""
    kept = [split_held_out(np.arange(100), rng(seed))[1] for seed in range(30)]
    assert 40 < np.mean(kept) < 60


def test_the_account_adds_up():
    one = {"added": [3], "labels_spent": 5, "known_sent": 2, "unknown_missed": 1,
           "known_called_unknown": 4}  # fmt: skip
    assert account([one, {**one, "added": [8, 9]}], range(16)) == {
        "discovered": 3,
        "open_world_classes": 16,
        "labels_spent": 10,
        "known_sent": 4,
        "unknown_missed": 2,
        "known_called_unknown": 8,
    }


class Errs:
    """Calls every image the same."""

    name = "errs"

    def __init__(self, label: int) -> None:
        self.says = label

    def label(self, stream, positions):
        return np.full(len(positions), self.says)


def test_a_labeller_that_errs_brings_no_base_image_into_training(eight, tiny_dataset):
    base, new = tiny_dataset.class_split.base, tiny_dataset.class_split.open_world[0]
    met = encounter(eight, np.arange(8.0), -1.0, base, Errs(new), budget=8)
    pool = gather_labels({}, eight, met, base)
    assert list(pool) == [new] and sorted(pool[new]) == sorted(eight.rows[~eight.test])


def test_a_labeller_may_not_name_a_class_that_the_factory_never_sees(eight, tiny_dataset):
    base, novel = tiny_dataset.class_split.base, tiny_dataset.class_split.novel[0]
    with pytest.raises(ValueError, match="labeller errs: 8 images were sent"):
        encounter(eight, np.arange(8.0), -1.0, base, Errs(novel), budget=8)


def test_a_labeller_names_every_image_that_it_is_sent(eight, tiny_dataset):
    class Lazy(Oracle):
        def label(self, stream, positions):
            return super().label(stream, positions)[1:]

    with pytest.raises(ValueError, match="labeller oracle"):
        encounter(eight, np.arange(8.0), -1.0, tiny_dataset.class_split.base, Lazy(), budget=8)
