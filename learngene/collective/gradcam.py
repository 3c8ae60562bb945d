"""Where the collective looks: Grad-CAM on one of its conv layers (figure 5).

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks", ICCV 2017, as captum has it:
channels of the layer weighted by the mean gradient of a logit, summed, and cut off at 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from learngene.networks.collective import Collective
from learngene.networks.layers import evaluation_mode

LEAST_SIDE = 4  # positions of a map below which it does not say where


def choose_layer(collective: Collective, side: int) -> int:
    """Number of the deepest layer whose map has at least 4 positions a side, counted from 1.

    The paper takes the top layer. Four max-pools lie in front of it: images of 84 pixels leave it
    5x5 positions and it is chosen, images of 32 leave it 2x2 and layer 10, with 4x4, is. ``side``:
    the images' smaller one, pixels.
    """
    chosen = 1
    for number, unit in enumerate(collective.units, start=1):
        if side >= LEAST_SIDE:
            chosen = number
        if unit.pool:
            side //= 2
    return chosen


def grad_cam(collective: Collective, images: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """What in each image speaks for the class that the collective predicts.

    Args:
        collective: left as it was; its norms are used in evaluation mode.
        images: (N, C, H, W), normalised as for training, on the collective's device.
        layer: whose map is taken, after ReLU and before pooling; counted from 1.

    Returns:
        maps: (N, H, W) in 0..1, each scaled by its own peak (all 0 where nothing speaks for the
            class), enlarged bilinearly from the layer's positions.
        predicted: (N,) outputs of the head.
    """
    from captum.attr import LayerAttribution, LayerGradCam  # late: clients never need its import

    with evaluation_mode(collective):
        with torch.no_grad():
            predicted = collective(images).argmax(1)
        with torch.enable_grad():
            coarse = LayerGradCam(collective, collective.units[layer - 1].relu).attribute(
                images.detach().clone(), target=predicted, relu_attributions=True
            )
    maps = LayerAttribution.interpolate(coarse.detach(), tuple(images.shape[2:]), "bilinear")[:, 0]
    peak = maps.amax((1, 2), keepdim=True)
    return torch.where(peak > 0, maps / peak, 0.0), predicted
