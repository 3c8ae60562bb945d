"""What federated methods share: a round at a client, the average of a round, and the end of it.

The global model is scratch's backbone (or the learngene) and a linear classifier with a row for
every class that clients may hold. A client trains the layers and the rows of its own classes, and
only these: its softmax is over its own classes. In the average the layers are weighted by the
clients' images, a row is averaged over the clients that hold its class. At the end each client
takes the layers, puts a classifier of its own behind them (it starts from the class means) and
fine-tunes both.

What a method keeps private (``Method.private``) is in no message: a client draws it in its first
round, gets back from the node that it runs on what the round before left, and begins its last
training with it.

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
from learngene.adaptation.training import Outcome, cosine, decay_groups, hold_norms, rates
from learngene.data.augment import augment
from learngene.data.partition import ShardData
from learngene.gene.card import read_card
from learngene.gene.gene import Learngene, reconstruct
from learngene.methods.base import ClientContext, Payload, Private, Update
from learngene.methods.common.backbone import Head, body_of, fill
from learngene.methods.common.head import fit, linear_head
from learngene.networks.individual import Individual, PrototypeHead, measure_norms
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

    arrays: Arrays  # of the head, the first rows are those of ``rows``; more may follow, unused
    images: int
    rows: tuple[int, ...]


def begin(
    seed: int,
    body: Mapping[str, Any],
    channels: int,
    classes: Sequence[int],
    ways: int,
    *,
    private: Private | None = None,
    gene: Learngene | None = None,
) -> Payload:
    """The global model before its first round, the same for every method that begins at random.

    Args:
        body: what its layers are (``backbone.body_card``).
        classes: dataset classes that clients may hold; row i of the head is ``classes[i]``.
        ways: classes that a client holds, at most.
        private: what clients keep to themselves: it is neither sent nor averaged.
        gene: the learngene that it begins as; None: at random.
    """
    card = dict(body)
    inherited: Arrays = {}
    if gene is not None:
        card, inherited = {"gene": gene.deepest.card.for_client()}, gene.deepest.arrays
    network = _network(
        card, inherited, seed, channels, lambda features, g: linear_head(features, len(classes), g)
    )
    arrays = {
        name: array
        for name, array in arrays_of(network).items()
        if private is None or not private.holds(name)
    }
    up = {
        name: [ways, *array.shape[1:]] if name in HEAD else list(array.shape)
        for name, array in arrays.items()
    }
    return Payload(arrays, card | {"classes": list(classes), "up": up})


def update(context: ClientContext, mu: float = 0.0) -> Update:
    """One round at a client: take the global model, train it on the shard, hand it back."""
    started = time.perf_counter()
    settings: FederatedSettings = context.settings
    shard, card = context.shard, context.card
    rows = [card["classes"].index(c) for c in shard.classes]
    sent = {n: a[rows] if n in HEAD else a for n, a in context.payload.items()}
    network = _at_client(
        replace(context, payload=sent),
        lambda features, g: linear_head(features, shard.ways, context.generator("head")),
        unmeasured=context.round == 1,  # nothing has gone through these layers yet
    )
    lr = settings.lr * cosine((context.round - 1) / settings.rounds)
    training = replace(context.individual, epochs=settings.local_epochs, lr=lr)
    generator = context.generator("federated")
    hold = card["gene"]["stem"] != "fresh" if "gene" in card else False
    loss = train_round(network, shard, training, mu=mu, generator=generator, freeze_norms=hold)
    seconds = time.perf_counter() - started
    arrays, up = arrays_of(network), card["up"]
    own = {name: array for name, array in arrays.items() if name not in up}
    sent = {name: _filled_up(arrays[name], shape[0]) for name, shape in up.items()}
    return Update(sent, len(shard.train_x), loss, seconds, own)


def _filled_up(array: np.ndarray, rows: int) -> np.ndarray:
    """The array with so many rows: a client of fewer classes than others sends zeros for the rest,
    so that the form of what goes up is the same for all."""
    return np.pad(array, [(0, rows - len(array)), *[(0, 0)] * (array.ndim - 1)])


def _network(
    card: Mapping[str, Any], arrays: Arrays, seed: int, channels: int, head: Head | None
) -> Individual:
    """The model that a card describes, as it is drawn (or inherited) before the first round."""
    drawn = torch_generator(seed, "federated-start")
    if "gene" not in card:
        return body_of(card, channels, head, drawn)
    gene = read_card(card["gene"], "federated start")
    inherited = {name: arrays[name] for name in gene.shapes}
    network = reconstruct(Learngene(gene, inherited), ways=1, generator=drawn)
    network.head = head(network.feature_count, drawn) if head else nn.Identity()
    return network


def _at_client(context: ClientContext, head: Head | None, unmeasured: bool = False) -> Individual:
    """The model of what was sent and, where the method keeps a part private, of what the client has
    of it; before that, as it was drawn.

    Norms that nothing has gone through yet are measured on the shard, as scratch's are: those of a
    model that is ``unmeasured``, and private ones of a client that has none yet.

    Raises:
        ValueError: an array is missing, has no place in the network, or another shape.
    """
    channels = context.shard.train_x.shape[1]
    network = _network(context.card, context.payload, context.seed, channels, head)
    drawn = arrays_of(network) if "private" in context.card else {}
    own = {name: array for name, array in context.private.items() if name in drawn}
    fill(network, drawn | context.payload | own)
    network = network.to(context.device).to(memory_format=torch.channels_last)
    sent = any(name.endswith("running_var") for name in context.payload)
    if unmeasured or not (sent or own):
        fresh = network.stem if "gene" in context.card else network
        measure_norms(fresh, network, context.shard.train_x, context.generator("norms"))
    return network


def train_round(
    network: nn.Module,
    shard: ShardData,
    settings: IndividualSettings,
    *,
    mu: float,
    generator: torch.Generator,
    freeze_norms: bool = False,
) -> float:
    """Train ``network`` in place on the shard; the mean cross-entropy over all steps.

    With ``mu`` each step's loss has the proximal term of FedProx, around where the network began.
    ``freeze_norms`` keeps the statistics of inherited norms, as individuals do.
    Of ``settings``, epochs, the rate and ``FEDERATED_FIELDS`` are read.
    """
    parameters = list(network.parameters())
    anchor = [p.detach().clone() for p in parameters]
    groups = decay_groups(parameters, settings.weight_decay)
    lr, _ = rates(settings, shard)
    optimiser = torch.optim.SGD(groups, lr=lr, momentum=settings.momentum)
    count, losses = len(shard.train_x), LossSum(shard.train_x.device)
    batches = math.ceil(count / min(settings.batch_size, count))
    network.train()
    if freeze_norms:
        hold_norms(network)
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


class Average:
    """The next global model: w = sum n_i w_i / sum n_i (McMahan et al. 2017, algorithm 1).

    A head's row is averaged over those that hold its class; one that nobody holds stays as it was.
    Sums are in float64 and in the order of ``add``, so equal updates give equal bits; of a client
    nothing is kept but what it adds to them.
    """

    def __init__(self, before: Mapping[str, np.ndarray]) -> None:
        self._before = before
        self._total = {name: np.zeros(old.shape) for name, old in before.items()}
        self._weight = {n: np.zeros(len(old) if n in HEAD else 1) for n, old in before.items()}
        self.clients = 0

    def add(self, part: Merged) -> None:
        """One more client."""
        self.clients += 1
        for name, total in self._total.items():
            rows = list(part.rows) if name in HEAD else slice(None)
            array = part.arrays[name][: len(part.rows)] if name in HEAD else part.arrays[name]
            total[rows] += part.images * array.astype(np.float64)
            self._weight[name][rows] += part.images

    def result(self) -> Arrays:
        """Raises:
        ValueError: nothing to average.
        """
        if not self.clients:
            raise ValueError("no client's weights to average")
        after: Arrays = {}
        for name, old in self._before.items():
            weight = self._weight[name]
            by_row = weight.reshape(-1, *(1,) * (old.ndim - 1)) if name in HEAD else weight[0]
            mean, held = self._total[name] / np.maximum(by_row, 1), by_row > 0
            after[name] = np.where(np.broadcast_to(held, old.shape), mean, old).astype(np.float32)
        return after


def finished(payload: Payload) -> Payload:
    """What a client is sent at the end: the layers, and no classifier."""
    card = {name: word for name, word in payload.card.items() if name not in ("classes", "up")}
    return Payload({n: a for n, a in payload.arrays.items() if n not in HEAD}, card)


def adapt(context: ClientContext) -> Outcome:
    """Make the global layers the client's own: the classifier that it has kept, or else class means
    behind them, then fine-tuning."""
    settings: FederatedSettings = context.settings
    ways = context.shard.ways
    kept = HEAD[0] in context.private
    body = _at_client(context, (lambda features, g: nn.Linear(features, ways)) if kept else None)
    head: nn.Module = PrototypeHead(body.feature_count, ways)
    if kept:
        head, body.head = body.head, nn.Identity()
    return fit(context, body, head, lr=settings.client_lr, body_lr=settings.client_body_lr)
