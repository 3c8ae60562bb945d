"""What a network costs: multiply-adds, the measure of a budget beside image passes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from learngene.networks.layers import evaluation_mode

TRAINING = 3  # times a forward pass: the gradients of inputs and of weights cost one each


@torch.no_grad()
def multiply_adds(network: nn.Module, channels: int, side: int) -> int:
    """Multiply-adds of all convolutions and linear layers in one image's forward pass.

    By hooks; ``torch.utils.flop_counter``, which a test holds it against, imports sympy when it
    first counts, a second for each run. An image is (channels, side, side).
    """
    total = 0

    def count(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += output.numel() * module.weight[0].numel()  # of one number of the output

    with evaluation_mode(network), ExitStack() as hooks:
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                hooks.callback(module.register_forward_hook(count).remove)
        device = next(network.parameters()).device
        network(torch.zeros(1, channels, side, side, device=device))
    return total
