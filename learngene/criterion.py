"""The judgement criterion: how much of a layer still changes (Eq. 4-5)."""

from __future__ import annotations

import torch
from torch import Tensor

from learngene.networks import Collective


def rho(gradient: Tensor, sigma: float) -> float:
    """Share of a layer's parameters whose absolute gradient exceeds ``sigma`` (Eq. 4-5), 0..1."""
    return float((gradient.abs() > sigma).float().mean())


class Criterion:
    """Mean rho of every conv layer over the training steps of one task.

    ``observe`` is called after the backward pass of the collective's own loss and before that of
    the light path, so that a shared layer's gradient is the collective's alone.
    """

    def __init__(self, sigma: float, layers: int) -> None:
        self.sigma = sigma
        self._sum = torch.zeros(layers)
        self._steps = 0

    @torch.no_grad()
    def observe(self, collective: Collective) -> None:
        gradients = [unit.conv.weight.grad for unit in collective.units]
        now = [(g.abs() > self.sigma).float().mean() for g in gradients if g is not None]
        self._sum += torch.stack(now).cpu()
        self._steps += 1

    def result(self) -> list[float]:
        """rho of layers 1..13, each 0..1."""
        if not self._steps:
            raise ValueError("rho of a task without a training step is not defined")
        return (self._sum / self._steps).tolist()
