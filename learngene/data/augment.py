"""From stored uint8 images to batches: one normalisation, one augmentation, for every network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CENTRE, SPREAD = 127.5, 64.0  # of pixel values 0 to 255


def to_batch(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, H, W, C) -> float (B, C, H, W) in about -2..2, channels_last.

    Fixed constants, not a data set's statistics: nothing about base data has to be sent along.
    """
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2)
    return x.to(torch.float32).sub_(CENTRE).div_(SPREAD)


def shrink(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side), with antialiasing; an image of that size stays as is."""
    if x.shape[-2:] == (side, side):
        return x
    small = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def augment(
    x: Tensor,
    generator: torch.Generator,
    *,
    flip: bool,
    side: int | None = None,
    zoom: float = 1.0,
) -> Tensor:
    """Random shifts of up to an eighth of the side, flips, and crops of ``side`` pixels.

    Args:
        x: (B, C, H, H).
        flip: mirror half of the images (only where a mirrored image keeps its label).
        side: side of the result in pixels, None = H.
        zoom: smallest side of the crop as a share of H; 1 = no zoom.
    """
    batch, _, height, _ = x.shape
    side = side or height
    draw = torch.rand(batch, 4, generator=generator)
    scale = zoom + (1 - zoom) * draw[:, 0]
    # Whole pixels at zoom 1: the crop then copies pixels and blurs nothing.
    reach = (1 - scale)[:, None] + (0.25 if zoom == 1 else 0.0)
    shift = (2 * draw[:, 1:3] - 1) * reach
    if zoom == 1:
        shift = (shift * height / 2).round() * 2 / height
    mirror = torch.where(draw[:, 3] < 0.5, -1.0, 1.0) if flip else torch.ones(batch)
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0] = scale * mirror
    theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [batch, 1, side, side], align_corners=False).to(x.device)
    moved = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)
