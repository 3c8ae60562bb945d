"""Cached datasets that were torn or altered: ``load`` refuses them, ``build`` makes them again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from learngene.data.cache import build
from learngene.data.dataset import ImageDataset, forget, load, seal
from learngene.errors import InputError
from tests.learngene.data.helpers import GLYPHS


@pytest.fixture
def path(glyphs: ImageDataset, tmp_path: Path) -> Path:
    """A copy of a dataset where ``build`` finds it."""
    return shutil.copytree(glyphs.path, tmp_path / "worlds" / glyphs.path.name)


def same(dataset: ImageDataset, glyphs: ImageDataset) -> bool:
    return (
        dataset.sha256 == glyphs.sha256
        and dataset.class_names == glyphs.class_names
        and dataset.class_split == glyphs.class_split
        and dataset.flip == glyphs.flip
        and all(
            np.array_equal(getattr(dataset, f"{split}_{name}"), getattr(glyphs, f"{split}_{name}"))
            for split in ("train", "test")
            for name in ("images", "labels", "hashes")
        )
    )


def refused(path: Path) -> bool:
    forget()
    try:
        load(path)
    except InputError as error:
        assert "Delete that folder" in str(error) and len(str(error)) < 1000
        return True
    return False


def test_flips_and_truncations_of_the_card(path: Path, glyphs: ImageDataset) -> None:
    card = path / "world.json"
    whole = card.read_bytes()
    unseen = 0
    for at in range(0, len(whole) - 1, 5):
        data = bytearray(whole)
        data[at] ^= 1 << (at % 7)
        card.write_bytes(bytes(data))
        if not refused(path):
            unseen += 1
            assert same(load(path), glyphs)  # white space
        card.write_bytes(whole[:at])
        assert refused(path)
    assert unseen < 20


def flip(at: int) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        data = bytearray(file.read_bytes())
        data[at] ^= 4
        file.write_bytes(bytes(data))

    return change


@pytest.mark.parametrize(
    "name", [f"{s}_{n}.npy" for s in ("train", "test") for n in ("images", "labels", "hashes")]
)
def test_damaged_arrays_are_made_again(
    path: Path, glyphs: ImageDataset, name: str, tmp_path: Path
) -> None:
    whole = (path / name).read_bytes()
    damages: list[Callable[[Path], Any]] = [
        *(flip(at) for at in (0, 7, 9, 30, 130, -1)),
        lambda file: os.truncate(file, len(whole) - 1),
        lambda file: os.truncate(file, 40),
        lambda file: os.truncate(file, 0),
        lambda file: file.write_bytes(whole + b"\0"),
        Path.unlink,
    ]
    for damage in damages:
        damage(path / name)
        seen = refused(path)
        assert seen or (name.endswith("images.npy") and damage in damages[4:6])  # pixels: build
        forget()
        assert same(build(GLYPHS, tmp_path), glyphs)
        assert (path / name).read_bytes() == whole
    left = [each.name for each in (tmp_path / "worlds").iterdir()]
    assert left == [path.name]


def test_a_damaged_card_is_made_again_and_said(
    path: Path, glyphs: ImageDataset, tmp_path: Path
) -> None:
    told: list[str] = []
    for damage in (Path.unlink, lambda file: file.write_text("{}"),
                   lambda file: file.write_text("[" * 10**5)):  # fmt: skip
        damage(path / "world.json")
        forget()
        assert same(build(GLYPHS, tmp_path, lambda what, *_: told.append(what)), glyphs)
        assert "the cached one is damaged" in told[0]
        told.clear()


FORGED: dict[str, Any] = {
    "format": "2",
    "images": {"train": 10**12, "test": 10**12},
    "image_shape": [3, 10**6, 10**6],
    "class_names": 5,
    "division": {"base": [10**9], "open_world": [], "novel": []},
    "flip": "yes",
    "name": ["glyphs"],
    "digests": {},
    "duplicates_dropped": -1,
    "sha256": 7,
}


@pytest.mark.parametrize("field", FORGED)
def test_forged_cards_with_the_right_digest(
    path: Path, field: str, glyphs: ImageDataset, tmp_path: Path
) -> None:
    card = json.loads((path / "world.json").read_text())
    card.pop("card_sha256")
    (path / "world.json").write_text(json.dumps(seal(card | {field: FORGED[field]})))
    assert refused(path)
    forget()
    assert same(build(GLYPHS, tmp_path), glyphs)
