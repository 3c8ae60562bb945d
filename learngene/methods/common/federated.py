"""What FedAvg and FedProx share: a round at a client, the average of a round, and the end of it.

The global model is scratch's backbone and a linear classifier with a row for every class that
clients may hold. A client trains the layers and the rows of its own classes, and only these: its
softmax is over its own classes. In the average the layers are weighted by the clients' images, a
row is averaged over the clients that hold its class. At the end each client takes the layers, puts
a classifier of its own behind them (it starts from the class means) and fine-tunes both.

Weights go up here, unlike in the paper's method: that is what these methods are. Images do not.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.adaptation.settings import IndividualSettings
from learngene.adaptation.training import Outcome, cosine, decay_groups, rates
from learngene.data.augment import augment
from learngene.data.partition import ShardData
from learngene.methods.base import ClientContext, Payload, Update
from learngene.methods.common.backbone import random_backbone, rebuild
from learngene.methods.common.head import fit, linear_head
from learngene.networks.individual import PrototypeHead, measure_norms
from learngene.networks.layers import arrays_of
from learngene.seeding import torch_generator
from learngene.utils.settings import setting
from learngene.utils.steps import LossSum

Arrays = dict[str, np.ndarray]
HEAD = ("head.weight", "head.bias")


@dataclass
class FederatedSettings:
    """The family's settings, with FedAvg's values."""

    # of federated training, before a client makes the model its own
    rounds: int = setting(10, ge=1, le=10_000)
    local_epochs: int = setting(3, ge=1, le=1000)  # passes over the shard in a round
    # at the clients, in the first round; half a cosine over the rounds
    lr: float = setting(0.02, gt=0, le=10)
    # of the new classifier, when a client makes the model its own
    client_lr: float = setting(0.002, gt=0, le=10)
    client_body_lr: float = setting(0.002, ge=0, le=10)  # of the backbone, then; 0 = frozen


@dataclass(frozen=True)
class Merged:
    """A client's part of an average: its arrays, its weight, and the head's rows that are its."""

    arrays: Arrays
    images: int
    rows: tuple[int, ...]


def begin(seed: int, width: float, channels: int, classes: Sequence[int], ways: int) -> Payload:
    """The global model before its first round, the same for every federated method.

    Args:
        classes: dataset classes that clients may hold; row i of the head is ``classes[i]``.
        ways: classes that a client holds.
    """
    generator = torch_generator(seed, "federated-start")
    network = random_backbone(
        width, channels, generator, lambda features, g: linear_head(features, len(classes), g)
    )
    arrays = arrays_of(network)
    up = {
        name: [ways, *array.shape[1:]] if name in HEAD else list(array.shape)
        for name, array in arrays.items()
    }
    return Payload(arrays, {"width": width, "classes": list(classes), "up": up})


def update(context: ClientContext, mu: float = 0.0) -> Update:
    """One round at a client: take the global model, train it on the shard, hand it back."""
    started = time.perf_counter()
    settings: FederatedSettings = context.settings
    shard = context.shard
    network = rebuild(replace(context, payload=_body(context.payload)))
    rows = [context.card["classes"].index(c) for c in shard.classes]
    head = nn.Linear(network.feature_count, shard.ways)
    with torch.no_grad():
        for parameter, name in ((head.weight, HEAD[0]), (head.bias, HEAD[1])):
            parameter.copy_(torch.from_numpy(context.payload[name][rows]))
    network.head = head.to(context.device)
    if context.round == 1:  # nothing has gone through these layers yet: as scratch begins
        measure_norms(network, network, shard.train_x)
    lr = settings.lr * cosine((context.round - 1) / settings.rounds)
    training = replace(context.individual, epochs=settings.local_epochs, lr=lr)
    generator = context.generator("federated")
    loss = train_round(network, shard, training, mu=mu, generator=generator)
    seconds = time.perf_counter() - started
    return Update(arrays_of(network), len(shard.train_x), loss, seconds)


def train_round(
    network: nn.Module,
    shard: ShardData,
    settings: IndividualSettings,
    *,
    mu: float,
    generator: torch.Generator,
) -> float:
    """Train ``network`` in place on the shard; the mean cross-entropy over all steps.

    With ``mu`` each step's loss has the proximal term of FedProx, around where the network began.
    Of ``settings``, epochs, the rate and ``INDIVIDUAL`` are read.
    """
    parameters = list(network.parameters())
    anchor = [p.detach().clone() for p in parameters]
    groups = decay_groups(parameters, settings.weight_decay)
    lr, _ = rates(settings, shard)
    optimiser = torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)
    count, losses = len(shard.train_x), LossSum(shard.train_x.device)
    batches = math.ceil(count / min(settings.batch_size, count))
    network.train()
    for _ in range(settings.epochs):
        order = torch.randperm(count, generator=generator).to(shard.train_x.device)
        for batch in order.chunk(batches):
            x = shard.train_x[batch]
            if settings.augment:
                x = augment(x, generator, flip=shard.flip)
            loss = F.cross_entropy(network(x), shard.train_y[batch])
            losses.add(loss, len(batch))
            if mu:
                loss = loss + proximal(parameters, anchor, mu)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
    return losses.total() / (count * settings.epochs)


def proximal(parameters: Sequence[Tensor], anchor: Sequence[Tensor], mu: float) -> Tensor:
    """mu/2 ||w - w_global||^2 over all parameters (Li et al. 2020, Eq. 2)."""
    squares = [(p - a).pow(2).sum() for p, a in zip(parameters, anchor, strict=True)]
    return 0.5 * mu * torch.stack(squares).sum()


def average(before: Mapping[str, np.ndarray], merged: Sequence[Merged]) -> Arrays:
    """The next global model: w = sum n_i w_i / sum n_i (McMahan et al. 2017, algorithm 1).

    A head's row is averaged over those that hold its class; one that nobody holds stays as it was.
    Sums are in float64 and in the order given, so equal updates give equal bits.

    Raises:
        ValueError: nothing to average.
    """
    if not merged:
        raise ValueError("no client's weights to average")
    after: Arrays = {}
    for name, old in before.items():
        total, weight = np.zeros(old.shape), np.zeros(len(old) if name in HEAD else 1)
        for part in merged:
            rows = list(part.rows) if name in HEAD else slice(None)
            total[rows] += part.images * part.arrays[name].astype(np.float64)
            weight[rows] += part.images
        by_row = weight.reshape(-1, *(1,) * (old.ndim - 1)) if name in HEAD else weight[0]
        mean = total / np.maximum(by_row, 1)
        after[name] = np.where(np.broadcast_to(by_row, old.shape) > 0, mean, old).astype(np.float32)
    return after


def finished(payload: Payload) -> Payload:
    """What a client is sent at the end: the layers, and no classifier."""
    card: dict[str, Any] = {"width": payload.card["width"]}
    return Payload(_body(payload.arrays), card)


def adapt(context: ClientContext) -> Outcome:
    """Make the global layers the client's own: class means behind them, then fine-tuning."""
    settings: FederatedSettings = context.settings
    body = rebuild(context)
    head = PrototypeHead(body.feature_count, context.shard.ways)
    return fit(context, body, head, lr=settings.client_lr, body_lr=settings.client_body_lr)


def _body(arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name: array for name, array in arrays.items() if name not in HEAD}
