"""Shards of named images: only what was called unknown, and what is missing stays missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from learngene.data.settings import ShardSettings
from learngene.errors import InputError
from learngene.open_world.flagged import (
    all_flagged,
    classes_of,
    decode_flags,
    draw_labelled_shard,
    encode_flags,
    random_flags,
)

ASKED = ShardSettings(ways=3, shots=5, seed=7, draws=2)


def flags_of(dataset, share: float = 0.5, seed: int = 0):
    drawn = np.random.default_rng(seed)
    return {
        c: drawn.random(len(dataset.rows("train", c))) < share
        for c in dataset.class_split.open_world
    }


def test_a_shard_holds_flagged_images_of_its_draws_classes_and_no_others(tiny_dataset):
    flags = flags_of(tiny_dataset)
    for client in range(4):
        shard = draw_labelled_shard(tiny_dataset, flags, ASKED, client)
        assert shard.classes == classes_of(tiny_dataset, ways=3, shard_seed=7, draw=client % 2)
        assert set(shard.classes) <= set(tiny_dataset.class_split.open_world)
        for c in shard.classes:
            flagged = set(tiny_dataset.rows("train", c)[flags[c]].tolist())
            held = [row for row in shard.train_rows.tolist() if tiny_dataset.train_labels[row] == c]
            assert set(held) <= flagged and len(held) == len(set(held)) == min(5, len(flagged))
        tests = {int(c) for c in tiny_dataset.test_labels[shard.test_rows]}
        assert tests == set(shard.classes)


def test_draws_are_of_different_classes_and_clients_of_a_draw_hold_different_images(tiny_dataset):
    flags = all_flagged(tiny_dataset)
    shards = [draw_labelled_shard(tiny_dataset, flags, ASKED, c) for c in range(4)]
    assert shards[0].classes == shards[2].classes != shards[1].classes == shards[3].classes
    assert set(shards[0].train_rows.tolist()) != set(shards[2].train_rows.tolist())
    again = draw_labelled_shard(tiny_dataset, flags, ASKED, 2)
    assert np.array_equal(again.train_rows, shards[2].train_rows)
    listed = draw_labelled_shard(tiny_dataset, flags, replace(ASKED, ways=[3], shots=[5]), 2)
    assert np.array_equal(listed.train_rows, shards[2].train_rows)


def test_fewer_shots_are_of_the_same_images(tiny_dataset):
    flags = flags_of(tiny_dataset)
    few, many = (
        draw_labelled_shard(tiny_dataset, flags, replace(ASKED, shots=n), 1) for n in (2, 5)
    )
    assert set(few.train_rows.tolist()) < set(many.train_rows.tolist())


def test_a_class_with_few_flagged_images_ends_with_fewer(tiny_dataset):
    flags = all_flagged(tiny_dataset)
    classes = classes_of(tiny_dataset, ways=3, shard_seed=7, draw=0)
    flags[classes[1]][:] = False
    flags[classes[1]][4] = True
    shard = draw_labelled_shard(tiny_dataset, flags, ASKED, 0)
    labels = tiny_dataset.train_labels[shard.train_rows].tolist()
    assert [labels.count(c) for c in classes] == [5, 1, 5]
    assert labels[:3] == list(classes)  # a first image of every class, then a second


def test_a_class_that_was_never_flagged_is_an_error_that_names_it(tiny_dataset):
    flags = all_flagged(tiny_dataset)
    c = classes_of(tiny_dataset, ways=3, shard_seed=7, draw=0)[2]
    flags[c][:] = False
    with pytest.raises(InputError, match=r"12 images of class .* called unknown") as caught:
        draw_labelled_shard(tiny_dataset, flags, ASKED, 0)
    assert tiny_dataset.class_names[c] in str(caught.value)
    with pytest.raises(InputError, match="open-world classes, glyphs has 4"):
        classes_of(tiny_dataset, ways=5, shard_seed=7, draw=0)


def test_flags_travel_as_text(tiny_dataset):
    flags = flags_of(tiny_dataset)
    text = encode_flags(flags)
    assert sum(map(len, text.values())) == 4 * 4  # 12 bits are two bytes, four digits, a class
    again = decode_flags(tiny_dataset, text)
    assert again.keys() == flags.keys()
    assert all(np.array_equal(again[c], flags[c]) for c in flags)
    with pytest.raises(ValueError, match="8 bits, 12 images"):
        decode_flags(tiny_dataset, {c: its[:2] for c, its in text.items()})


def test_random_flags_are_a_share_of_every_class_and_of_the_seed_alone(tiny_dataset):
    flags = random_flags(tiny_dataset, 0.25, seed=3)
    assert set(flags) == set(tiny_dataset.class_split.open_world)
    assert {(its.sum(), len(its)) for its in flags.values()} == {(3, 12)}
    assert len({its.tobytes() for its in flags.values()}) > 1  # each class its own draw
    again, other = (random_flags(tiny_dataset, 0.25, seed=seed) for seed in (3, 4))
    assert all(np.array_equal(again[c], flags[c]) for c in flags)
    assert any(not np.array_equal(other[c], flags[c]) for c in flags)
