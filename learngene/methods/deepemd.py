"""DeepEMD: images are near when the parts of one can be carried over to the parts of the other.

Paper: Zhang, Cai, Lin, Shen, "DeepEMD: Few-Shot Image Classification with Differentiable Earth
Mover's Distance and Structured Classifiers", CVPR 2020, the fully convolutional form: classes
first, then 1-shot episodes; weights of the parts by cross-reference; flows are constants to the
gradient (the released code's ``opencv`` solver, here POT's exact one); with several shots a
structured classifier is fitted to the shard (SFC).
Differences: the seven-layer backbone, whose last pool is left out (4x4 parts of a 32x32 image
instead of 5x5 of 84x84); one budget for both phases, shared out by ``class_share``; the SFC takes
``client_steps`` steps over random shares of the shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import ot
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.adaptation.training import Outcome, shard_features
from learngene.methods.base import ClientContext, Factory, Method, Payload
from learngene.methods.common.backbone import body_of, draw, evaluate_once, payload_of, rebuild
from learngene.methods.common.head import linear_head
from learngene.methods.common.pretraining import (
    Episode,
    EpisodeSettings,
    SupervisedSettings,
    by_episodes,
    supervised,
)
from learngene.methods.protonet import class_means
from learngene.networks.individual import Individual
from learngene.utils.settings import setting

LEAST = 1e-3  # added to the parts' weights, as in the released code
BATCH = 256  # images


@dataclass
class Settings(SupervisedSettings):
    """Two phases at the factory, all base classes and 1-shot episodes, and the client's part."""

    class_share: float = setting(0.8, ge=0, le=1)  # of the budget that the first phase takes
    # peak learning rate of the second phase (Adam): 1-shot episodes
    episode_lr: float = setting(1e-4, gt=0, le=10)
    ways: int = setting(5, ge=2, le=1000)  # base classes of an episode
    queries: int = setting(5, ge=1, le=1000)  # query images of a class
    side: int = setting(4, ge=1, le=16)  # parts of an image: side x side at most
    temperature: float = setting(25.0, gt=0, le=1000)  # factor from similarity to logit
    client_lr: float = setting(0.1, gt=0, le=100)  # of the structured classifier
    # of the structured classifier; 0 = the class means as they are
    client_steps: int = setting(500, ge=0, le=10_000)
    client_batch: int = setting(10, ge=1, le=65_536)  # images of such a step


def parts_of(network: Individual, x: Tensor, side: int) -> Tensor:
    """The last layer's map in front of its pool, at most ``side`` x ``side``: (B, parts, C)."""
    *below, last = network.layers
    for unit in below:
        x = unit(x)
    x = last.relu(last.norm(last.conv(x)))
    if x.shape[-1] > side:
        x = F.adaptive_avg_pool2d(x, side)
    return x.flatten(2).transpose(1, 2)


def flows(similarity: np.ndarray, supply: np.ndarray, demand: np.ndarray) -> np.ndarray:
    """Optimal flows of many pairs, each by POT's network simplex.

    Args:
        similarity: (N, P, R) of parts, at most 1; the cost of a unit is 1 less it.
        supply, demand: (N, P) and (N, R), above 0; each row is brought to the sum 1.

    Returns:
        (N, P, R), float64.
    """
    cost = np.ascontiguousarray(1.0 - similarity.astype(np.float64))
    # Brought to 1 in float64: the simplex wants both sums equal to the last bits.
    a, b = (w.astype(np.float64) / w.sum(1, dtype=np.float64)[:, None] for w in (supply, demand))
    return np.stack(
        [
            ot.emd(supplied, demanded, costs, check_marginals=False)
            for supplied, demanded, costs in zip(a, b, cost, strict=True)
        ]
    )


def similarity(queries: Tensor, classes: Tensor) -> Tensor:
    """1 less the earth mover's distance, (Q, P, C) and (W, R, C) -> (Q, W).

    Cosines are of parts less the mean over their channels, as in the released code (``norm``
    ``center``): behind a ReLU, parts as they are all look alike.
    """
    q, c = (F.normalize(t - t.mean(2, keepdim=True), dim=2) for t in (queries, classes))
    cosine = torch.einsum("qpd,wrd->qwpr", q, c)
    with torch.no_grad():
        # Cross-reference: a part counts as far as it resembles the other image's mean.
        supply = torch.einsum("qpd,wd->qwp", queries, classes.mean(1)).relu() + LEAST
        demand = torch.einsum("wrd,qd->qwr", classes, queries.mean(1)).relu() + LEAST
        moved = flows(*(t.flatten(0, 1).cpu().numpy() for t in (cosine, supply, demand)))
    carried = torch.from_numpy(moved).to(cosine).view_as(cosine)
    return (carried * cosine).sum((2, 3))


def class_parts(parts: Tensor, labels: Tensor, ways: int) -> Tensor:
    """Mean parts of each class, (N, P, C) -> (ways, P, C)."""
    return class_means(parts.flatten(1), labels, ways).unflatten(1, parts.shape[1:])


def pretrain(factory: Factory) -> Payload:
    settings: Settings = factory.settings
    network = draw(factory)
    features = network.layers[-1].conv.out_channels
    classes = factory.images.classes
    head = linear_head(features, classes, factory.generator("head")).to(factory.images.device)
    both = nn.ModuleDict({"network": network, "head": head})

    def loss(x: Tensor, y: Tensor) -> Tensor:
        with factory.autocast():
            parts = parts_of(network, x, settings.side)
        return F.cross_entropy(head(parts.float().mean(1)), y)

    first = int(factory.budget * settings.class_share)
    supervised(factory, both, loss, budget=first)

    def episode_loss(support: Tensor, query: Tensor, task: Episode) -> Tensor:
        logits = settings.temperature * similarity(query, support)
        return F.cross_entropy(logits, task.query_y)

    by_episodes(
        factory,
        network,
        episode_loss,
        settings=EpisodeSettings(
            lr=settings.episode_lr, ways=settings.ways, shots=1, queries=settings.queries
        ),
        budget=factory.budget - first,
        embed=lambda x: parts_of(network, x, settings.side),
        number=1,
        static=False,  # flows are found on the CPU
    )
    return payload_of(factory, network, temperature=settings.temperature, side=settings.side)


def adapt(context: ClientContext) -> Outcome:
    settings: Settings = context.settings
    network, shard = rebuild(context), context.shard
    network.eval()
    side, temperature = context.card["side"], context.card["temperature"]

    @torch.no_grad()
    def all_parts(x: Tensor) -> Tensor:
        return torch.cat([parts_of(network, part, side) for part in x.split(BATCH)])

    support, labels = shard_features(network, shard, all_parts)
    classes = class_parts(support, labels, shard.ways).requires_grad_(True)
    generator = context.generator("sfc")
    optimiser = torch.optim.SGD([classes], lr=settings.client_lr, momentum=0.9, dampening=0.9)
    for _ in range(settings.client_steps):
        order = torch.randperm(len(support), generator=generator)[: settings.client_batch]
        batch = order.to(context.device)
        logits = temperature * similarity(support[batch], classes)
        optimiser.zero_grad()
        F.cross_entropy(logits, labels[batch]).backward()
        optimiser.step()
    fitted = classes.detach()
    return evaluate_once(
        context, lambda x: F.log_softmax(temperature * similarity(all_parts(x), fitted), dim=1)
    )


METHOD = Method(adapt, pretrain, settings=Settings, training_free=True, body=body_of)
