"""A new classifier on a body that came from the factory, which stays frozen or is tuned along."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
from torch import nn

from learngene.adaptation.training import (
    Outcome,
    TrainSettings,
    Transferred,
    features,
    shard_features,
    train,
)
from learngene.methods.base import ClientContext
from learngene.networks.individual import PrototypeHead


class SevenLayers(nn.Module):
    """What ``Individual.features`` computes, as a module by itself."""

    def __init__(self, individual: nn.Module) -> None:
        super().__init__()
        self.of = individual

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (B, C, H, W) -> (B, D)
        return self.of.features(x)  # type: ignore[operator]


def linear_head(features: int, ways: int, generator: torch.Generator) -> nn.Linear:
    """A linear classifier whose weights are drawn from ``generator``."""
    made = nn.Linear(features, ways)
    nn.init.normal_(made.weight, std=1 / math.sqrt(features), generator=generator)
    nn.init.zeros_(made.bias)
    return made


def fit(context: ClientContext, body: nn.Module, head: nn.Module, *, lr: float,
        body_lr: float) -> Outcome:  # fmt: skip
    """Train ``head`` at ``lr`` and, unless ``body_lr`` is 0, ``body`` at ``body_lr``.

    A frozen body's features are taken once, of the plain images: nothing then changes them. A
    prototype head starts from the shard's class means.
    """
    started = time.perf_counter()
    shard, network = context.shard, Transferred(body, head).to(context.device)
    shared = TrainSettings.of(
        context.task["individual"], lr=lr, inherited_lr=body_lr, freeze_norms=True
    )
    if isinstance(head, PrototypeHead):
        head.start(*shard_features(network, shard))
    if body_lr == 0:
        seen, test = features(network, shard.train_x), features(network, shard.test_x)
        shard = replace(shard, train_x=seen, test_x=test)
        network = Transferred(nn.Identity(), head)
        shared = replace(shared, augment=False)
    outcome = train(network, shard, shared, context.generator("training"))
    outcome.seconds = time.perf_counter() - started
    return outcome
