"""MatchingNet: the support images' labels, weighted by attention.

Paper: Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra, "Matching Networks for One Shot
Learning", NeurIPS 2016. Softmax over cosine similarities; loss on the attended label.
Differences: no full-context embeddings (two LSTMs of more parameters than the backbone, worth a
point or less in the paper); cosines are multiplied by a constant (``scale``) before the softmax,
without which attention over 25 or more images is close to uniform (Chen et al. 2019 do the same).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from learngene.adaptation.training import Outcome, features, shard_features
from learngene.methods.base import ClientContext, Factory, Method, Payload
from learngene.methods.common.backbone import body_of, draw, evaluate_once, payload_of, rebuild
from learngene.methods.common.pretraining import Episode, EpisodeSettings, by_episodes
from learngene.utils.settings import setting

FLOOR = 1e-6  # added to probabilities before their logarithm


@dataclass
class Settings(EpisodeSettings):
    """As ProtoNet's, and the attention's."""

    lr: float = setting(0.002, gt=0, le=10)  # peak learning rate (Adam)
    shots: int = setting(2, ge=1, le=1000)  # support images of a class
    scale: float = setting(50.0, gt=0, le=1000)  # of the cosines before the softmax


def attend(queries: Tensor, support: Tensor, labels: Tensor, ways: int, scale: float) -> Tensor:
    """Log-probabilities of classes, (Q, D), (N, D), labels (N,) -> (Q, ways)."""
    attention = torch.softmax(scale * F.normalize(queries) @ F.normalize(support).T, dim=1)
    return (attention @ F.one_hot(labels, ways).to(attention.dtype) + FLOOR).log()


def pretrain(factory: Factory) -> Payload:
    network, scale = draw(factory), factory.settings.scale

    def loss(support: Tensor, query: Tensor, task: Episode) -> Tensor:
        scores = attend(query, support, task.support_y, task.ways, scale)
        return F.nll_loss(scores, task.query_y)

    by_episodes(factory, network, loss)
    return payload_of(factory, network, scale=scale)


def adapt(context: ClientContext) -> Outcome:
    network, shard = rebuild(context), context.shard
    support, labels = shard_features(network, shard)
    return evaluate_once(
        context,
        lambda x: attend(features(network, x), support, labels, shard.ways, context.card["scale"]),
    )


METHOD = Method(adapt, pretrain, settings=Settings, training_free=True, body=body_of)
