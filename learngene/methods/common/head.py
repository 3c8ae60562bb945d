"""A new classifier on a body that came from the factory, which stays frozen or is tuned along."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from learngene.adaptation.training import (
    Outcome,
    Transferred,
    features,
    shard_features,
    train,
)
from learngene.methods.base import ClientContext
from learngene.networks.individual import PrototypeHead


def linear_head(features: int, ways: int, generator: torch.Generator) -> nn.Linear:
    """A linear classifier whose weights are drawn from ``generator``."""
    head = nn.Linear(features, ways)
    nn.init.normal_(head.weight, std=1 / math.sqrt(features), generator=generator)
    nn.init.zeros_(head.bias)
    return head


def fit(
    context: ClientContext, body: nn.Module, head: nn.Module, *, lr: float, body_lr: float
) -> Outcome:
    """Train ``head`` at ``lr`` and, unless ``body_lr`` is 0, ``body`` at ``body_lr``.

    A frozen body's features are taken once, of the images and their mirror images where these are
    allowed: nothing then changes them, and an epoch is a pass over all of them. A prototype head
    starts from the shard's class means.
    """
    shard, network = context.shard, Transferred(body, head).to(context.device)
    settings = replace(context.individual, lr=lr, inherited_lr=body_lr)
    if isinstance(head, PrototypeHead):
        head.start(*shard_features(network, shard))
    if body_lr == 0:
        train_x, train_y = shard_features(network, shard)
        test_x = features(network, shard.test_x)
        shard = replace(shard, train_x=train_x, train_y=train_y, test_x=test_x, flip=False)
        network = Transferred(nn.Identity(), head)
        settings = replace(settings, augment=False)
    return train(network, shard, settings, context.generator("training"), freeze_norms=True)
