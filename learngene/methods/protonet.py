"""ProtoNet: the class whose mean of features is nearest.

Paper: Snell, Swersky, Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017. Squared
Euclidean distance, episodes of more ways than at test.
Differences: the seven-layer backbone; Adam with a one-cycle rate in place of halving; no validation
episodes (the budget is spent to its end); an episode's shots are a setting, tuned, and need not be
those of the client, which the paper advises; mirrored views at the client, as for all.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from learngene.adaptation.training import Outcome, features, shard_features
from learngene.methods.base import ClientContext, Factory, Method, Payload
from learngene.methods.common.backbone import body_of, draw, evaluate_once, payload_of, rebuild
from learngene.methods.common.pretraining import Episode, EpisodeSettings, by_episodes


def class_means(features: Tensor, labels: Tensor, ways: int) -> Tensor:
    """(N, D) features with labels 0..ways-1 -> (ways, D)."""
    members = F.one_hot(labels, ways).to(features.dtype)
    return (members.T @ features) / members.sum(0)[:, None]


def nearness(queries: Tensor, prototypes: Tensor) -> Tensor:
    """Minus the squared Euclidean distance, (Q, D) and (W, D) -> (Q, W)."""
    return -(queries.pow(2).sum(1)[:, None] - 2 * queries @ prototypes.T + prototypes.pow(2).sum(1))


def pretrain(factory: Factory) -> Payload:
    network = draw(factory)

    def loss(support: Tensor, query: Tensor, task: Episode) -> Tensor:
        prototypes = class_means(support, task.support_y, task.ways)
        return F.cross_entropy(nearness(query, prototypes), task.query_y)

    by_episodes(factory, network, loss)
    return payload_of(factory, network)


def adapt(context: ClientContext) -> Outcome:
    network, shard = rebuild(context), context.shard
    prototypes = class_means(*shard_features(network, shard), shard.ways)
    return evaluate_once(
        context, lambda x: F.log_softmax(nearness(features(network, x), prototypes), dim=1)
    )


METHOD = Method(adapt, pretrain, settings=EpisodeSettings, training_free=True, body=body_of)
