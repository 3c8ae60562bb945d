"""Class folders of one's own, read as a client's shard: any classes, any number of images of each.

What a node does with its ``data-root`` and ``python -m learngene adapt`` with a folder. Images are
cut, resized and held to the limits as a dataset's are; they stay in memory, no cache has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from learngene.data.arrays import first_copies, image_hashes
from learngene.data.dataset import SPLITS
from learngene.data.partition import ShardData, shard_of
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import check_labels
from learngene.data.sources.decode import Range, own_pixel_limit
from learngene.data.sources.folder import open_folder
from learngene.data.sources.named import readable_root
from learngene.errors import InputError
from learngene.utils.hardware import memory

VALUE_BYTES = 4 * 4  # of memory for a value: float32, its mirror image, and what decoding takes


@dataclass(frozen=True)
class OwnImages:
    """Images uint8 (N, side, side, 3) and labels (N,) by split, each picture once."""

    class_names: tuple[str, ...]  # label i stands for class_names[i]: the folders, in order
    images: dict[str, NDArray[np.uint8]]
    labels: dict[str, NDArray[np.int64]]
    value_range: Range | None  # of images of more than 8 bits: what became 0 and 255
    notes: tuple[str, ...]

    def shard(self, *, flip: bool, device: torch.device | str = "cpu") -> ShardData:
        """As a method takes it; ``flip``: whether a mirrored image keeps its class."""
        train, test = ((self.images[split], self.labels[split]) for split in SPLITS)
        return shard_of(*train, *test, flip=flip, device=device)


@own_pixel_limit()
def read_own_images(
    root: str | Path,
    *,
    side: int,
    test_share: float = 0.2,
    seed: int = 0,
    value_range: list[float] | None = None,
) -> OwnImages:
    """Read ``root/train/CLASS/*`` and ``root/test/CLASS/*``, or ``root/CLASS/*`` split by ``seed``.

    Of equal pictures one is kept, the test copy first, so that none is on both sides.

    Args:
        side: rows and columns that images are brought to: those the learngene grew up on.
        test_share: share of each class that is test, where the folders do not say.
        value_range: of images of more than 8 bits what becomes 0 and 255; None: it is measured.

    Raises:
        InputError: the folder, a file or an image cannot be used, there are fewer than two classes,
            or one of them has no image on a side.
    """
    settings = SeededDataSettings(
        "imagefolder",
        root=str(root),
        image_size=side,
        test_share=test_share,
        seed=seed,
        value_range=value_range,
    )
    source = open_folder(readable_root(settings), settings, side, divided=False)
    names, count = source.class_names, sum(map(len, source.labels.values()))
    if len(names) < 2:
        problem = f"it holds one class, {names[0]}"
        raise InputError("data.root", root, problem, "Give it a folder for each of two classes")
    if (due := count * side**2 * 3 * VALUE_BYTES) > (free := memory()[0]):
        problem = f"{count:,} images of {side}x{side} take {due / 1e9:,.1f} GB of memory"
        problem = f"{problem}, {free / 1e9:,.1f} are free"
        raise InputError("data.root", root, problem, "Give it fewer images")
    source.measure(lambda what, done, total: None)
    images = {split: np.concatenate([*source.batches(split)]) for split in SPLITS}
    hashes = {split: image_hashes(images[split]) for split in SPLITS}
    masks, conflicts = first_copies(hashes, source.labels)
    labels = {split: source.labels[split][masks[split]] for split in SPLITS}
    check_labels(labels, names, settings)
    notes = list(source.notes)
    if dropped := sum(int((~mask).sum()) for mask in masks.values()):
        notes.append(f"{dropped} pictures are there already and left out")
    if conflicts:
        notes.append(f"{conflicts} of them lie in another class's folder, too")
    return OwnImages(
        class_names=names,
        images={split: images[split][masks[split]] for split in SPLITS},
        labels=labels,
        value_range=source.value_range,
        notes=tuple(notes),
    )
