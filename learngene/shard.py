"""A client's private images, as it holds them in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learngene.images import to_batch
from learngene.world import Shard, World


@dataclass(frozen=True)
class ShardData:
    """Images (N, C, H, W) normalised, labels (N,) as 0..ways-1, for training and test."""

    classes: tuple[int, ...]  # the label i stands for classes[i] of the world, or of the user
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    flip: bool  # whether a mirrored image keeps its class

    @property
    def ways(self) -> int:
        return len(self.classes)


def shard_of(
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
    *,
    flip: bool = True,
    device: torch.device | str = "cpu",
) -> ShardData:
    """A shard of images that one holds oneself.

    Args:
        train_images, test_images: uint8 (N, H, W, C), all of one size.
        train_labels, test_labels: (N,) any integers; the classes are those of the training images.
        flip: whether a mirrored image keeps its class (letters do not).

    Raises:
        ValueError: the arrays do not fit each other, or a test label is of no training image.
    """
    for name, images, labels in (
        ("train", train_images, train_labels),
        ("test", test_images, test_labels),
    ):
        check_images(f"{name}_images", images)
        if len(images) != len(labels) or len(images) == 0:
            raise ValueError(f"{len(images)} {name} images have {len(labels)} labels")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise ValueError(
            f"training images are {train_images.shape[1:]}, test images {test_images.shape[1:]}"
        )
    classes = np.unique(train_labels)
    if strange := sorted({*np.unique(test_labels).tolist()} - {*classes.tolist()}):
        raise ValueError(f"test label {strange[0]} is of no training image")

    def ways(labels: np.ndarray) -> Tensor:
        return torch.from_numpy(np.searchsorted(classes, labels)).to(device)

    return ShardData(
        classes=tuple(int(c) for c in classes),
        train_x=to_batch(train_images, device),
        train_y=ways(train_labels),
        test_x=to_batch(test_images, device),
        test_y=ways(test_labels),
        flip=flip,
    )


def check_images(name: str, images: np.ndarray) -> None:
    """Hold that images are as they come from files.

    Raises:
        ValueError: they are not uint8 (N, H, W, C); others would be normalised twice.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise ValueError(f"{name} are {images.dtype} {images.shape}, uint8 (N, H, W, C) is due")


def read_shard(world: World, shard: Shard, device: torch.device) -> ShardData:
    """Read a shard's images from the world's mmap; nothing else of the world is touched."""
    way = {c: i for i, c in enumerate(shard.classes)}

    def labels(stored: np.ndarray, rows: np.ndarray) -> Tensor:
        return torch.tensor([way[int(c)] for c in stored[rows]], device=device)

    return ShardData(
        classes=tuple(shard.classes),
        train_x=to_batch(world.train_images[shard.train_rows], device),
        train_y=labels(world.train_labels, shard.train_rows),
        test_x=to_batch(world.test_images[shard.test_rows], device),
        test_y=labels(world.test_labels, shard.test_rows),
        flip=world.flip,
    )
