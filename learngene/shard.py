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

    classes: tuple[int, ...]
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor
    flip: bool

    @property
    def ways(self) -> int:
        return len(self.classes)


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
