"""Class folders of one's own: any classes, any number of images, split by a seed."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from learngene.data.own_images import read_own_images
from learngene.data.settings import range_in
from learngene.errors import InputError
from tests.clients.pictures import draw_folders


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_folders(tmp_path_factory.mktemp("own"), {"cat": 10, "dog": 3, "newt": 2})


def test_unequal_classes_are_split_by_the_seed_and_brought_to_size(folder):
    own = read_own_images(folder, side=32, seed=1)
    assert own.class_names == ("cat", "dog", "newt")
    counts = {split: np.bincount(labels).tolist() for split, labels in own.labels.items()}
    assert counts == {"train": [8, 2, 1], "test": [2, 1, 1]}
    assert {part.shape[1:] for part in own.images.values()} == {(32, 32, 3)}
    again, other = (read_own_images(folder, side=32, seed=seed) for seed in (1, 2))
    assert np.array_equal(own.images["test"], again.images["test"])
    assert not np.array_equal(own.images["test"], other.images["test"])
    shard = own.shard(flip=True)
    assert shard.ways == 3 and len(shard.train_x) == 11 and len(shard.test_x) == 4


def test_a_split_of_the_folders_is_kept_and_equal_pictures_are_on_one_side(tmp_path):
    split = {f"{part}/{name}": 3 for part in ("train", "test") for name in ("a", "b")}
    draw_folders(tmp_path, split)
    shutil.copy(tmp_path / "test/a/00.png", tmp_path / "train/b/copy.png")
    own = read_own_images(tmp_path, side=32, seed=7)
    assert {split: len(labels) for split, labels in own.labels.items()} == {"train": 6, "test": 6}
    assert len(own.notes) == 2 and own.notes[0].startswith("1 pictures are there already")


def test_values_of_more_than_8_bits_share_a_range(tmp_path, folder):
    for name, low in (("dark", 0), ("bright", 3000)):
        (tmp_path / name).mkdir()
        for number in range(3):
            values = np.full((32, 32), low + number, np.uint16)
            values[0, : number + 1] = 4095
            Image.fromarray(values).save(tmp_path / name / f"{number}.png")
    assert read_own_images(tmp_path, side=32).value_range == (0.0, 4095.0)
    assert read_own_images(folder, side=32).value_range is None
    assert read_own_images(tmp_path, side=32, value_range=[0, 9000]).value_range == (0, 9000)


@pytest.mark.parametrize("text", ["[9,0]", "[0]", "0 to 9", '["a",1]', "[0,1e999]"])
def test_a_range_that_is_none_is_refused(text, folder):
    with pytest.raises(InputError, match=r"data\.value_range"):
        read_own_images(folder, side=32, value_range=range_in(text))


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"cat": 3}, "one class, cat"),
        ({"cat": 3, "dog": 1}, "class dog has 1 image"),
        ({}, "found no images"),
    ],
)
def test_folders_that_make_no_task_are_refused(tmp_path, classes, said):
    with pytest.raises(InputError, match=said):
        read_own_images(draw_folders(tmp_path, classes), side=32)


def test_a_folder_that_memory_has_no_room_for_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr("learngene.data.own_images.memory", lambda: (1000.0, 1e9))
    with pytest.raises(InputError, match="GB of memory"):
        read_own_images(folder, side=32)
