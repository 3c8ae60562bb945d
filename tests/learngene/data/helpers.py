"""Tiny images and sources that the tests of ``learngene.data`` are made of."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from learngene.data.settings import SeededDataSettings
from learngene.seeding import generator

GLYPHS = SeededDataSettings(
    "glyphs", classes=20, train_per_class=6, test_per_class=3, base=0.5, open_world=0.2, novel=0.3
)
FOLDERS = SeededDataSettings("imagefolder", image_size=8, base=0.5, open_world=0.25, novel=0.25)


def noise(seed: int, count: int, side: int = 8) -> np.ndarray:
    """Distinct images (count, side, side, 3)."""
    return generator(seed, "test").integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    made = io.BytesIO()
    Image.fromarray(pixels).save(made, "PNG")
    return made.getvalue()


def write_parquet(
    file: Path, images: list[bytes], labels: list[int], columns: tuple[str, str]
) -> None:
    """Parquet as the hub writes it, in row groups of 64, without class names."""
    cells = pa.array(
        [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)],
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(dict(zip(columns, (cells, pa.array(labels)), strict=True)))
    pq.write_table(table, file, row_group_size=64)


def write_folders(root: Path, classes: list[str], count: int, seed: int = 0, side: int = 8) -> None:
    """``count`` distinct PNG files for each class, in folders below ``root``."""
    for i, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for j, image in enumerate(noise(1000 * seed + i, count, side)):
            Image.fromarray(image).save(root / name / f"{j}.png")
