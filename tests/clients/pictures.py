"""Class folders of noise around a colour of each class, for tests of a node's own images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers import rng


def draw_folders(root: Path, classes: Mapping[str, int], *, seed: int = 0, side: int = 40) -> Path:
    """``root/CLASS/NN.png``, so many of each class; ``train/cat`` is a class of a split."""
    drawn = rng(seed)
    for name, count in classes.items():
        colour = drawn.integers(0, 256, 3)
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = drawn.normal(colour, 40, (side, side, 3))
            pixels = np.clip(noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return root
