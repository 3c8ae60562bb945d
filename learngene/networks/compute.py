"""What a network costs: multiply-adds, the measure beside image passes when budgets are compared."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from learngene.networks.layers import evaluation_mode

TRAINING = 3  # times a forward pass: the gradients of inputs and of weights cost one each


@torch.no_grad()
def multiply_adds(network: nn.Module, channels: int, side: int) -> int:
    """Multiply-adds of convolutions and matrix products in one image's forward pass.

    Args:
        network: of images (B, C, H, W); it is not run, but a copy of it without numbers.
        channels, side: of the image, (channels, side, side).
    """
    shadow = copy.deepcopy(network).to("meta")
    counter = FlopCounterMode(display=False)
    with evaluation_mode(shadow), counter:
        shadow(torch.zeros(1, channels, side, side, device="meta"))
    return counter.get_total_flops() // 2  # the counter takes a multiply-add for two
