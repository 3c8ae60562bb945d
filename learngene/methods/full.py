"""The whole collective, fine-tuned: what one would do who may send 13 layers to every client.

No paper: the practitioner's yardstick. The 13 layers (more, after deepening) cross as they are; a
classifier that starts from prototypes goes behind them and all of it is trained on the shard.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.adaptation.training import Outcome
from learngene.methods.base import ClientContext, Method, Payload
from learngene.methods.common.backbone import fill
from learngene.methods.common.head import fit
from learngene.networks.collective import Collective
from learngene.networks.individual import PrototypeHead
from learngene.networks.layers import Unit, Units, arrays_of
from learngene.utils.settings import setting


@dataclass
class Settings:
    """The client's training."""

    client_lr: float = setting(0.0005, gt=0, le=10)  # of the classifier
    client_body_lr: float = setting(0.0005, ge=0, le=10)  # of the 13 layers


class LongPath(nn.Module):
    """The collective's long path up to its features.

    Args:
        plan: of each layer [channels in, channels out, a pool follows].
    """

    def __init__(self, plan: list[list[Any]]) -> None:
        super().__init__()
        self.units = Units(Unit(i, o, pool=bool(pool)) for i, o, pool in plan)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, D)
        for unit in self.units:
            x = unit(x)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


def from_collective(collective: Collective) -> Payload:
    """The long path of a finished collective."""
    plan = [[u.conv.in_channels, u.conv.out_channels, u.pool] for u in collective.units]
    return Payload(arrays_of(collective.units, "units."), {"plan": plan})


def rebuild_long(context: ClientContext) -> LongPath:
    """The long path at the client."""
    path = LongPath(context.card["plan"])
    fill(path, context.payload)
    return path.to(context.device).to(memory_format=torch.channels_last)


def adapt(context: ClientContext) -> Outcome:
    settings: Settings = context.settings
    body = rebuild_long(context)
    head = PrototypeHead(body.units[-1].conv.out_channels, context.shard.ways)
    return fit(context, body, head, lr=settings.client_lr, body_lr=settings.client_body_lr)


METHOD = Method(adapt, from_collective=from_collective, settings=Settings)
