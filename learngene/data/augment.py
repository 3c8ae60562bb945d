"""From stored uint8 images to batches: one normalisation, one augmentation, for every network."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

CENTRE, SPREAD = 127.5, 64.0  # of pixel values 0 to 255
MOVED_BY = 1 / 16  # of the side: half of what training moves an image by, at most


def to_batch(images: np.ndarray | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, H, W, C) -> float (B, C, H, W) in about -2..2, channels_last.

    Fixed constants, not a data set's statistics: nothing about base data has to be sent along.

    Args:
        device: of the result; a tensor stays where it is.
    """
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
    return images.permute(0, 3, 1, 2).to(torch.float32).sub_(CENTRE).div_(SPREAD)


def shrink(x: Tensor, side: int) -> Tensor:
    """(B, C, H, W) -> (B, C, side, side), with antialiasing; an image of that size stays as is."""
    if x.shape[-2:] == (side, side):
        return x
    small = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    return small.contiguous(memory_format=torch.channels_last)


def still_views(x: Tensor, *, mirror: bool, moved: bool) -> list[Tensor]:
    """The views in which a classifier is shown images at its start and in tests, each as ``x``.

    First the images as they are; then, where ``moved``, by ``MOVED_BY`` of their side to each of
    four sides, with zeros behind, as training moves them; behind these, with ``mirror``, the mirror
    image of each.

    Args:
        x: (B, C, H, W).
    """
    seen = [x]
    if moved:
        height, width = x.shape[2:]
        by = max(1, round(MOVED_BY * height))
        wide = F.pad(x, (by, by, by, by))
        for top, left in ((0, by), (2 * by, by), (by, 0), (by, 2 * by)):
            part = wide[:, :, top : top + height, left : left + width]
            seen.append(part.contiguous(memory_format=torch.channels_last))
    return [*seen, *(view.flip(3) for view in seen)] if mirror else seen


def draw_views(images: int, generator: torch.Generator) -> Tensor:
    """What ``views`` takes of chance, (images, 4) in 0..1, on the CPU: so a GPU sees equal draws.

    The draws of many images are those of their batches one after the other.
    """
    return torch.rand(images, 4, generator=generator)


def views(
    x: Tensor,
    draws: Tensor,
    *,
    flip: bool,
    side: int | None = None,
    zoom: float = 1.0,
) -> Tensor:
    """Random shifts of up to an eighth of the side, flips, and crops of ``side`` pixels.

    Args:
        x: (B, C, H, H).
        draws: ``draw_views`` of B images, on the device of ``x``.
        flip: mirror half of the images (only where a mirrored image keeps its label).
        side: side of the result in pixels, None = H.
        zoom: smallest side of the crop as a share of H; 1 = no zoom.
    """
    batch, _, height, _ = x.shape
    side = side or height
    scale = zoom + (1 - zoom) * draws[:, 0]
    # Whole pixels at zoom 1: the crop then copies pixels and blurs nothing.
    reach = (1 - scale)[:, None] + (0.25 if zoom == 1 else 0.0)
    shift = (2 * draws[:, 1:3] - 1) * reach
    if zoom == 1:
        shift = (shift * height / 2).round() * 2 / height
    # Arithmetic, not ``torch.where`` of two numbers: these would come from the CPU at every step.
    mirror = 2 * (draws[:, 3] >= 0.5).float() - 1 if flip else torch.ones_like(scale)
    theta = torch.zeros(batch, 2, 3, device=x.device)
    theta[:, 0, 0] = scale * mirror
    theta[:, 1, 1] = scale
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [batch, 1, side, side], align_corners=False)
    moved = F.grid_sample(x, grid, padding_mode="zeros", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)


def augment(x: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """``views`` of whole images, with draws of ``generator``."""
    return views(x, draw_views(len(x), generator).to(x.device), flip=flip)
