"""What FedAvg and FedProx share: a round at a client, the average of a round, and the end of it.

The global model is scratch's seven layers and a linear classifier with a row for every class that
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

from learngene.adaptation.settings import FEDERATED_FIELDS
from learngene.adaptation.training import Outcome, cosine
from learngene.data.augment import augment as augmented
from learngene.data.partition import ShardData
from learngene.methods.backbone import arrays_of, drawn, feature_count, rebuild
from learngene.methods.base import ClientContext, Payload, Update
from learngene.methods.head import SevenLayers, fit, linear_head
from learngene.networks.individual import PrototypeHead, measure_norms
from learngene.seeding import torch_generator

Arrays = dict[str, np.ndarray]
HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True)
class Merged:
    """A client's part of an average: its arrays, its weight, and the head's rows that are its."""

    arrays: Arrays
    images: int
    rows: tuple[int, ...]


def begin(seed: int, stem: str, width: float, channels: int, classes: Sequence[int],
          ways: int) -> Payload:  # fmt: skip
    """The global model before its first round, the same for every federated method.

    Args:
        classes: world classes that clients may hold; row i of the head is ``classes[i]``.
        ways: classes that a client holds.
    """
    chance = torch_generator(seed, "federated-start")
    network = drawn(stem, width, channels, chance)
    network.head = linear_head(feature_count(network), len(classes), chance)
    arrays = arrays_of(network)
    up = {
        name: [ways, *array.shape[1:]] if name in HEAD else list(array.shape)
        for name, array in arrays.items()
    }
    return Payload(arrays, {"stem": stem, "width": width, "classes": list(classes), "up": up})


def update(context: ClientContext, name: str) -> Update:
    """One round at a client: take the global model, train it on the shard, hand it back."""
    started = time.perf_counter()
    own, shared, shard = context.task["method"][name], context.task["individual"], context.shard
    network = rebuild(replace(context, payload=_body(context.payload)))
    rows = [context.card["classes"].index(c) for c in shard.classes]
    head = nn.Linear(feature_count(network), shard.ways)
    with torch.no_grad():
        for parameter, each in ((head.weight, HEAD[0]), (head.bias, HEAD[1])):
            parameter.copy_(torch.from_numpy(context.payload[each][rows]))
    network.head = head.to(context.device)
    if context.round == 1:  # nothing has gone through these layers yet: as scratch begins
        measure_norms(network, network, shard.train_x)
    loss = train_round(
        network,
        shard,
        epochs=own["local_epochs"],
        lr=own["lr"] * cosine((context.round - 1) / own["rounds"]),
        mu=own.get("mu", 0.0),
        chance=context.generator("federated"),
        **{each: shared[each] for each in FEDERATED_FIELDS},
    )
    seconds = time.perf_counter() - started
    return Update(arrays_of(network), len(shard.train_x), loss, seconds)


def train_round(network: nn.Module, shard: ShardData, *, epochs: int, lr: float, mu: float,
                chance: torch.Generator, batch_size: int, momentum: float, weight_decay: float,
                augment: bool) -> float:  # fmt: skip
    """Train ``network`` in place on the shard; the mean cross-entropy over all steps.

    With ``mu`` each step's loss has the proximal term of FedProx, around where the network began.
    """
    parameters = list(network.parameters())
    anchor = [p.detach().clone() for p in parameters]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=lr, momentum=momentum)
    count, total = len(shard.train_x), 0.0
    batches = math.ceil(count / min(batch_size, count))
    network.train()
    for _ in range(epochs):
        order = torch.randperm(count, generator=chance).to(shard.train_x.device)
        for batch in order.chunk(batches):
            x = shard.train_x[batch]
            if augment:
                x = augmented(x, chance, flip=shard.flip)
            loss = F.cross_entropy(network(x), shard.train_y[batch])
            total += float(loss.detach()) * len(batch)
            if mu:
                loss = loss + proximal(parameters, anchor, mu)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
    return total / (count * epochs)


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
        for each in merged:
            places = list(each.rows) if name in HEAD else slice(None)
            total[places] += each.images * each.arrays[name].astype(np.float64)
            weight[places] += each.images
        beside = weight.reshape(-1, *(1,) * (old.ndim - 1)) if name in HEAD else weight[0]
        mean = total / np.maximum(beside, 1)
        after[name] = np.where(np.broadcast_to(beside, old.shape) > 0, mean, old).astype(np.float32)
    return after


def finished(payload: Payload) -> Payload:
    """What a client is sent at the end: the layers, and no classifier."""
    card: dict[str, Any] = {name: payload.card[name] for name in ("stem", "width")}
    return Payload(_body(payload.arrays), card)


def adapt(context: ClientContext, name: str) -> Outcome:
    """Make the global layers the client's own: class means behind them, then fine-tuning."""
    own, network = context.task["method"][name], rebuild(context)
    head = PrototypeHead(feature_count(network), context.shard.ways)
    body = SevenLayers(network)
    return fit(context, body, head, lr=own["client_lr"], body_lr=own["client_body_lr"])


def _body(arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name: array for name, array in arrays.items() if name not in HEAD}
