"""The whole collective, fine-tuned: what one would do who may send 13 layers to every client.

No paper: the practitioner's yardstick. The 13 layers (more, after deepening) cross as they are; a
classifier that starts from prototypes goes behind them and all of it is trained on the shard.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from learngene.adaptation.training import Outcome
from learngene.methods.base import ClientContext, Method, Payload
from learngene.methods.common.backbone import fill
from learngene.methods.common.head import fit
from learngene.networks.collective import Collective
from learngene.networks.individual import PrototypeHead
from learngene.networks.layers import Unit, arrays_of
from learngene.utils.settings import setting


@dataclass
class Settings:
    """The client's training."""

    client_lr: float = setting(0.0005, gt=0, le=10)  # of the classifier
    client_body_lr: float = setting(0.0005, ge=0, le=10)  # of the 13 layers


def from_collective(collective: Collective) -> Payload:
    """The long path of a finished collective: of each layer [channels in, out, a pool follows]."""
    plan = [[u.conv.in_channels, u.conv.out_channels, u.pool] for u in collective.units]
    block = {} if collective.block == "plain" else {"block": collective.block}
    return Payload(arrays_of(collective.units, "units."), {"plan": plan, **block})


def long_path(card: Mapping[str, Any], channels: int) -> nn.Module:
    """The long path that a payload's card describes, (B, ``channels``, H, W) -> (B, D)."""
    block = card.get("block", "plain")
    layers = (Unit(i, o, pool=bool(pool), block=block) for i, o, pool in card["plan"])
    units = nn.Sequential(*layers)
    pool, flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(OrderedDict(units=units, pool=pool, flat=flat))


def rebuild_long(context: ClientContext) -> tuple[nn.Module, int]:
    """The long path at the client, and D."""
    path = long_path(context.card, context.shard.train_x.shape[1])
    fill(path, context.payload)
    features = context.card["plan"][-1][1]
    return path.to(context.device).to(memory_format=torch.channels_last), features


def adapt(context: ClientContext) -> Outcome:
    settings: Settings = context.settings
    body, features = rebuild_long(context)
    head = PrototypeHead(features, context.shard.ways)
    return fit(context, body, head, lr=settings.client_lr, body_lr=settings.client_body_lr)


METHOD = Method(adapt, from_collective=from_collective, settings=Settings, body=long_path)
