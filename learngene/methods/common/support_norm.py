"""BatchNorm for methods that learn from a few images at once.

Every norm uses the statistics of the support images, also for query and test images
(MetaBN of Bronskill et al., "TaskNorm", ICML 2020). Statistics of the test batch itself, as MAML's
own code takes them, would look at several test images at once, which no other method here may.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.networks.individual import Individual

MODES = ("batch", "store", "use")


class SupportNorm(nn.BatchNorm2d):
    """BatchNorm with the statistics of the support images.

    ``mode`` is ``batch``: of this batch; ``store``: of this batch, and remembered; ``use``: those
    that were remembered.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, track_running_stats=False)
        self.mode = "batch"
        self.statistics: tuple[Tensor, Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mode == "batch":
            return F.batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        if self.mode == "store":
            self.statistics = (x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False))
        assert self.statistics is not None, "no support images went through"
        mean, variance = self.statistics
        slope = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * slope
        return x * slope[:, None, None] + shift[:, None, None]


def with_support_norms(individual: Individual) -> Individual:
    """Put a ``SupportNorm`` in the place of every norm, in place; slopes and shifts stay."""
    for module in list(individual.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                norm = SupportNorm(child.num_features)
                norm.weight, norm.bias = child.weight, child.bias
                setattr(module, name, norm)
    return individual


def set_mode(network: nn.Module, mode: str) -> None:
    """Of every ``SupportNorm`` in the network.

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} of a norm: one of {', '.join(MODES)} is due")
    for module in network.modules():
        if isinstance(module, SupportNorm):
            module.mode = mode
