from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fontTools.ttLib import TTFont

from learngene.data.cache import build
from learngene.data.dataset import ImageDataset
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.glyphs import (
    CHARACTERS,
    TEST_FACES,
    TRAIN_FACES,
    draw_class,
    face_file,
    glyph_mask,
)
from learngene.errors import InputError
from tests.learngene.data.helpers import GLYPHS


def test_fresh_folders_give_equal_datasets(glyphs: ImageDataset, tmp_path: Path) -> None:
    again = build(GLYPHS, tmp_path)
    assert again.path != glyphs.path and again.sha256 == glyphs.sha256
    assert np.array_equal(again.train_images, glyphs.train_images)
    assert build(replace(GLYPHS, seed=1), tmp_path).sha256 != glyphs.sha256


def test_a_class_does_not_depend_on_the_others(glyphs: ImageDataset, tmp_path: Path) -> None:
    name = glyphs.class_names[7]
    drawn = draw_class(name, "train", 6, 32, seed=0)
    assert np.array_equal(glyphs.train_images[glyphs.rows("train", 7)], drawn)
    assert not np.array_equal(drawn, draw_class(name, "test", 6, 32, seed=0))


def test_shapes_and_class_split(glyphs: ImageDataset) -> None:
    assert glyphs.train_images.shape == (120, 32, 32, 3) and glyphs.image_shape == (3, 32, 32)
    assert glyphs.test_images.shape == (60, 32, 32, 3) and glyphs.train_images.dtype == np.uint8
    class_split = glyphs.class_split
    assert [len(class_split.group(g)) for g in ("base", "open_world", "novel")] == [10, 4, 6]
    assert sorted(class_split.base + class_split.open_world + class_split.novel) == list(range(20))
    assert not glyphs.flip and not glyphs.train_images.flags.writeable
    # not blank: letters are bright or dark enough against their paper
    assert glyphs.train_images.reshape(120, -1).std(1).min() > 10


def test_no_face_is_in_both_splits() -> None:
    assert len({*TRAIN_FACES, *TEST_FACES}) == len(TRAIN_FACES) + len(TEST_FACES) == 16
    families = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
    for family in families:  # the longest family that begins a face's name is its own
        mine = [
            f for f in TEST_FACES if max(families, key=lambda x: f.startswith(x) * len(x)) == family
        ]
        assert len(mine) == 1


def test_every_face_has_every_character() -> None:
    assert len(set(CHARACTERS)) == len(CHARACTERS) >= 108
    for face in TRAIN_FACES + TEST_FACES:
        assert set(map(ord, CHARACTERS)) <= set(TTFont(face_file(face)).getBestCmap()), face


def test_no_two_characters_look_alike() -> None:
    seen = []
    for face in TRAIN_FACES + TEST_FACES:
        small = [np.asarray(glyph_mask(c, face, 32).reduce(4), float).ravel() for c in CHARACTERS]
        flat = np.stack(small) - np.mean(small, 1, keepdims=True)
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        seen.append(flat @ flat.T)
    alike = np.mean(seen, 0) - np.eye(len(CHARACTERS))
    first, second = np.unravel_index(alike.argmax(), alike.shape)
    assert alike.max() < 0.86, (CHARACTERS[first], CHARACTERS[second])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classes": 500}, "a train label is outside 0..107"),
        ({"classes": 4, "novel": 0.05, "base": 0.75}, "each needs at least 1"),
        ({"base": 0.9}, "sum to 1, they sum to 1.4"),
        ({"base": 1.1, "novel": -0.3}, "above 0"),
        ({"train_per_class": 0}, "has 0 train images, it needs at least 1"),
        ({"image_size": 4}, "data.image_size=4"),
    ],
)
def test_settings_that_cannot_be(change: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says):
        build(replace(GLYPHS, **change), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_size(tmp_path: Path) -> None:
    small = SeededDataSettings(
        "glyphs", classes=10, train_per_class=1, test_per_class=1, image_size=48
    )
    assert build(small, tmp_path).train_images.shape == (10, 48, 48, 3)
