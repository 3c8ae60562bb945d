"""Batches by position: read where they lie, or out of what the device holds."""

from __future__ import annotations

import numpy as np
import torch

from learngene.data.augment import draw_views, to_batch, views
from learngene.data.device_images import DeviceImages
from tests.helpers import CPU, rng, torch_rng


def test_held_and_read_images_are_the_same_batch():
    images = rng().integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    rows, positions = np.array([7, 2, 5, 0]), torch.tensor([3, 0, 0])
    held, read = (DeviceImages(images, rows, CPU, held=h)[positions] for h in (True, False))
    expected = to_batch(images[[0, 7, 7]])
    for found in (held, read):
        assert torch.equal(found, expected)
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_held_images_are_a_copy_and_read_ones_are_not():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    held, read = (DeviceImages(images, np.arange(2), CPU, held=h) for h in (True, None))
    images[:] = 255
    assert held[torch.tensor([0])].unique().tolist() == [-127.5 / 64]
    assert read[torch.tensor([0])].unique().tolist() == [127.5 / 64]


def test_draws_of_an_epoch_are_those_of_its_batches():
    of_all, of_batches = torch_rng(), torch_rng()
    x = torch.rand(7, 3, 8, 8)
    whole = draw_views(21, of_all)
    for part in whole.split(7):
        expected = views(x, draw_views(7, of_batches), flip=True, side=6, zoom=0.5)
        assert torch.equal(views(x, part, flip=True, side=6, zoom=0.5), expected)
