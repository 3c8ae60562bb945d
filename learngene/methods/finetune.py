"""Fine-tuning: a backbone that tells the base classes apart, and a new linear classifier on it.

Paper: "Baseline" of Chen, Liu, Kira, Wang, Huang, "A Closer Look at Few-shot Classification",
ICLR 2019, which the learngene paper calls Fine-tuning: at the client the backbone is frozen.
Differences: the seven-layer backbone; the client trains for ``individual.epochs`` passes as every
method does; ``method.finetune.client_body_lr`` above 0 tunes the backbone, too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from learngene.adaptation.training import Outcome
from learngene.methods.backbone import draw, feature_count, payload_of, rebuild
from learngene.methods.base import ClientContext, Factory, Method, Payload
from learngene.methods.head import SevenLayers, fit, linear_head
from learngene.methods.pretraining import supervised

# (features, classes, generator) -> a classifier
MakeHead = Callable[[int, int, torch.Generator], nn.Module]


def pretrain(factory: Factory, make_head: MakeHead = linear_head) -> Payload:
    classes = factory.images.classes
    network = draw(factory, lambda features, chance: make_head(features, classes, chance))

    def loss(x, y):  # type: ignore[no-untyped-def]
        with factory.autocast():
            said = network(x)
        return F.cross_entropy(said.float(), y)

    supervised(factory, network, loss, budget=factory.budget)
    return payload_of(factory, network)


def adapt(
    context: ClientContext, name: str = "finetune", make_head: MakeHead = linear_head
) -> Outcome:
    network, own = rebuild(context), context.task["method"][name]
    head = make_head(feature_count(network), context.shard.ways, context.generator("head"))
    return fit(
        context, SevenLayers(network), head, lr=own["client_lr"], body_lr=own["client_body_lr"]
    )


METHOD = Method(adapt, pretrain)
