"""Fine-tuning: a backbone that tells the base classes apart, and a new linear classifier on it.

Paper: "Baseline" of Chen, Liu, Kira, Wang, Huang, "A Closer Look at Few-shot Classification",
ICLR 2019, which the learngene paper calls Fine-tuning: at the client the backbone is frozen.
Differences: the seven-layer backbone; the client trains for ``individual.epochs`` passes as every
method does; ``method.finetune.client_body_lr`` above 0 tunes the backbone, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.adaptation.training import Outcome
from learngene.methods.base import ClientContext, Factory, Method, Payload
from learngene.methods.common.backbone import body_of, draw, payload_of, rebuild
from learngene.methods.common.head import fit, linear_head
from learngene.methods.common.pretraining import SupervisedSettings, supervised
from learngene.networks.individual import Individual
from learngene.utils.settings import setting

# (features, classes, generator) -> a classifier
MakeHead = Callable[[int, int, torch.Generator], nn.Module]


@dataclass
class Settings(SupervisedSettings):
    """The factory's training, and the client's."""

    client_lr: float = setting(0.05, gt=0, le=10)  # of the new classifier
    # of the backbone; 0 = frozen, as in the paper
    client_body_lr: float = setting(0.002, ge=0, le=10)


def train_on_classes(
    factory: Factory, budget: int, make_head: MakeHead = linear_head
) -> Individual:
    """A backbone that tells the base classes apart, with the head that it was trained behind."""
    classes = factory.images.classes
    network = draw(factory, lambda features, generator: make_head(features, classes, generator))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with factory.autocast():
            logits = network(x)
        return F.cross_entropy(logits.float(), y)

    supervised(factory, network, loss, budget=budget)
    return network


def pretrain(factory: Factory, make_head: MakeHead = linear_head) -> Payload:
    return payload_of(factory, train_on_classes(factory, factory.budget, make_head))


def adapt(context: ClientContext, make_head: MakeHead = linear_head) -> Outcome:
    settings: Settings = context.settings
    body = rebuild(context)
    head = make_head(body.feature_count, context.shard.ways, context.generator("head"))
    return fit(context, body, head, lr=settings.client_lr, body_lr=settings.client_body_lr)


METHOD = Method(adapt, pretrain, settings=Settings, body=body_of)
