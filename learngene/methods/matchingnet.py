"""MatchingNet: the support images' labels, weighted by attention.

Paper: Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, "Matching Networks for One Shot
Learning", NeurIPS 2016. Softmax over cosine similarities; loss on the attended label.
Differences: no full-context embeddings (two LSTMs of more parameters than the backbone, worth a
point or less in the paper); cosines are multiplied by a constant (``scale``) before the softmax,
without which attention over 25 or more images is close to uniform (Chen et al. 2019 do the same).
"""

from __future__ import annotations

import time

import torch
import torch.nn.functional as F
from torch import Tensor

from learngene.methods.episodes import draw_episode, run_steps
from learngene.methods.interface import ClientContext, Factory, Method, Payload
from learngene.methods.seven import draw, one_point, payload_of, rebuild
from learngene.training import Outcome, features

FLOOR = 1e-6  # added to probabilities before their logarithm


def attend(queries: Tensor, support: Tensor, labels: Tensor, ways: int, scale: float) -> Tensor:
    """Log-probabilities of classes, (Q, D), (N, D), labels (N,) -> (Q, ways)."""
    attention = torch.softmax(scale * F.normalize(queries) @ F.normalize(support).T, dim=1)
    return (attention @ F.one_hot(labels, ways).to(attention.dtype) + FLOOR).log()


def pretrain(factory: Factory) -> Payload:
    s = factory.settings
    network = draw(factory)
    ways = min(s["ways"], factory.images.classes)

    def turn(step: int) -> float:
        task = draw_episode(factory, step, ways=ways, shots=s["shots"], queries=s["queries"])
        with factory.autocast():
            found = network.features(torch.cat([task.support_x, task.query_x]))
        support, query = found.float().split([len(task.support_y), len(task.query_y)])
        said = attend(query, support, task.support_y, ways, s["scale"])
        loss = F.nll_loss(said, task.query_y)
        loss.backward()
        return float(loss.detach())

    steps = max(1, factory.budget // (ways * (s["shots"] + s["queries"])))
    run_steps(factory, network, torch.optim.Adam(network.parameters(), s["lr"]), turn, steps)
    return payload_of(factory, network, scale=s["scale"])


def adapt(context: ClientContext) -> Outcome:
    started = time.perf_counter()
    network, shard = rebuild(context), context.shard
    support = features(network, shard.train_x)
    return one_point(
        context,
        lambda x: attend(
            features(network, x), support, shard.train_y, shard.ways, context.card["scale"]
        ),
        started,
    )


METHOD = Method(adapt, pretrain)
