"""Fixtures of the dataset tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from learngene.data.cache import build
from learngene.data.dataset import ImageDataset
from tests.learngene.data.helpers import GLYPHS, noise, png, write_parquet

Parts = dict[str, tuple[list[bytes], list[int]]]


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    """20 characters: 10 base, 4 open-world, 6 novel; 6 training and 3 test images of each."""
    return build(GLYPHS, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real data sets, or a skip."""
    beside = Path(__file__).resolve().parents[4] / "shared"
    found = Path(os.environ.get("LEARNGENE_SHARED", beside)) / "data"
    if not found.is_dir():
        pytest.skip(f"no real data at {found}: set LEARNGENE_SHARED to the folder that has data/")
    return found


@pytest.fixture
def cifar(tmp_path: Path) -> Callable[..., Path]:
    """Writes a parquet CIFAR-100 of 3 training and 1 test image a class, changed by ``edit``."""

    def write(
        edit: Callable[[Parts], None] = lambda parts: None,
        columns: tuple[str, str] = ("img", "fine_label"),
        side: int = 32,
    ) -> Path:
        labels = {"train": [i % 100 for i in range(300)], "test": list(range(100))}
        parts = {
            split: ([png(image) for image in noise(seed, len(found), side)], found)
            for seed, (split, found) in enumerate(labels.items())
        }
        edit(parts)
        for split, (images, found) in parts.items():
            write_parquet(tmp_path / f"parquet/{split}-0.parquet", images, found, columns)
        return tmp_path / "parquet"

    return write
