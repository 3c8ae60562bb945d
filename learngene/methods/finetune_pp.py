"""Fine-tuning++: fine-tuning with a cosine classifier at the factory and at the client.

Paper: "Baseline++" of Chen et al. 2019 (see ``finetune.py``), the learngene paper's Fine-tuning++.
Differences: those of ``finetune.py``; the scale of the cosines is learned from 10 on, in place of a
constant 2.
"""

from __future__ import annotations

import torch.nn.functional as F

from learngene.methods.episodes import supervised
from learngene.methods.fitting import SevenLayers, fit
from learngene.methods.interface import ClientContext, Factory, Method, Payload
from learngene.methods.seven import draw, feature_count, payload_of, rebuild
from learngene.networks import CosineHead
from learngene.training import Outcome


def pretrain(factory: Factory) -> Payload:
    classes = factory.images.classes
    network = draw(factory, lambda features, chance: CosineHead(features, classes, chance))

    def loss(x, y):  # type: ignore[no-untyped-def]
        with factory.autocast():
            said = network(x)
        return F.cross_entropy(said.float(), y)

    supervised(factory, network, loss, budget=factory.budget)
    return payload_of(factory, network)


def adapt(context: ClientContext) -> Outcome:
    network, own = rebuild(context), context.task["method"]["finetune_pp"]
    head = CosineHead(feature_count(network), context.shard.ways, context.generator("head"))
    return fit(
        context, SevenLayers(network), head, lr=own["client_lr"], body_lr=own["client_body_lr"]
    )


METHOD = Method(adapt, pretrain)
