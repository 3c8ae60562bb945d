"""Training of an individual on its shard: L = L_rec + lambda L_ret (Eq. 6, 8, 9)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Parameter

from learngene.adaptation.retain import Retain
from learngene.adaptation.settings import IndividualSettings
from learngene.data.augment import augment, still_views
from learngene.data.partition import ShardData
from learngene.networks.individual import Individual
from learngene.utils.settings import check_settings
from learngene.utils.steps import LossSum

RATE_OF_AN_IMAGE, LARGEST_RATE = 1e-4, 0.01  # of learning, for each image of a class
CLIP = 5.0  # longest gradient

_after_epoch: ContextVar[Callable[[int], None]] = ContextVar(
    "after_epoch", default=lambda epoch: None
)


@contextmanager
def after_each_epoch(call: Callable[[int], None]) -> Iterator[None]:
    """Have ``train`` call this with each epoch that is over (0: before any), while this is open."""
    token = _after_epoch.set(call)
    try:
        yield
    finally:
        _after_epoch.reset(token)


def epoch_over(epoch: int) -> None:
    """Tell whoever waits for it."""
    _after_epoch.get()(epoch)


def replay_epochs(last: int) -> None:
    """Tell whoever waits for epochs that they are over: a training that was run before its time."""
    for epoch in range(last + 1):
        epoch_over(epoch)


@dataclass
class Outcome:
    """What a method reports of one client: curves over epochs, the last epoch last.

    The lists have one entry for each test. ``extras`` are further numbers of the last epoch:
    ``train_accuracy``, a share of the shard's images, and ``fisher_mean``, the mean of the Fisher
    information before it is scaled.
    """

    epochs: list[int] = field(default_factory=list)  # 0: before any training
    accuracy: list[float] = field(default_factory=list)  # share of the test images, 0 to 1
    loss: list[float] = field(default_factory=list)  # mean cross-entropy on them, nats
    # Means over the epoch before; at epoch 0 of the untrained network on the plain images.
    train_loss: list[float] = field(default_factory=list)  # L_rec
    penalty: list[float] = field(default_factory=list)  # lambda L_ret
    seconds: float = 0.0  # wall clock, tests included
    extras: dict[str, float] = field(default_factory=dict)

    def record(
        self, epoch: int, accuracy: float, loss: float, train_loss: float, penalty: float = 0.0
    ) -> None:
        """Add a test to the curves."""
        self.epochs.append(epoch)
        self.accuracy.append(accuracy)
        self.loss.append(loss)
        self.train_loss.append(train_loss)
        self.penalty.append(penalty)

    @property
    def finite(self) -> bool:
        """Whether every number is, but for the seconds."""
        curves = (*self.accuracy, *self.loss, *self.train_loss, *self.penalty)
        return all(map(math.isfinite, (*curves, *self.extras.values())))

    def metrics(self) -> dict[str, float | int | list[float] | list[int]]:
        """Flat numbers and lists of numbers, as a MetricRecord takes them."""
        flat = {**vars(self), **self.extras}
        del flat["extras"]
        return flat


class Transferred(torch.nn.Module):
    """A network of which everything but the classifier came from the factory.

    ``train`` takes it as it takes an individual: its body is ``top`` (``inherited_lr``), in front
    of which it has no layers of its own.
    """

    def __init__(self, body: torch.nn.Module, head: torch.nn.Module) -> None:
        super().__init__()
        self.stem, self.own = torch.nn.Sequential(), torch.nn.Sequential()
        self.top, self.head = body, head

    def features(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D)."""
        return self.top(x)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to logits (B, ways)."""
        return self.head(self.features(x))


def train(
    individual: Individual | Transferred,
    shard: ShardData,
    settings: IndividualSettings,
    generator: torch.Generator,
    retain: Retain | None = None,
    *,
    freeze_norms: bool,
    ewc_lambda: float = 0.0,
) -> Outcome:
    """Train ``individual`` in place and test it along the way.

    Eq. 9 is minimised by proximal gradient steps: a step of SGD on L_rec, then the exact step on
    lambda L_ret, which has a closed form. The Fisher's largest entries are a hundred times its
    mean: explicit steps on the penalty would swing and diverge at the lambdas that matter.

    Args:
        individual: reconstructed, with its classifier started.
        settings: of stem, head and safeguard nothing is read here.
        retain: the retain loss of its inherited layers; None leaves Eq. 6 alone.
        freeze_norms: keep the statistics of norms that were inherited or measured.
        ewc_lambda: Eq. 9's lambda.

    Returns:
        Curves that begin at epoch 0, before any training, and end at the last epoch. The extra
        ``train_accuracy`` is that of the trained individual on the shard's plain images (Eq. 10's
        empirical error is 1 less this).
    """
    check_settings(settings)
    outcome, started = Outcome(), time.perf_counter()

    def logits_of(x: Tensor) -> Tensor:
        return individual.head(features(individual, x))

    tests = (shard.test_x, shard.test_y, shard.test_views)
    named, before = measure(logits_of, shard.train_x, shard.train_y)
    outcome.record(0, *measure(logits_of, *tests), before)
    epoch_over(0)
    if not settings.epochs:  # as it was inherited
        outcome.extras["train_accuracy"], outcome.seconds = named, time.perf_counter() - started
        return outcome
    lr, inherited_lr = rates(settings, shard)
    optimiser = sgd(individual, settings, lr, inherited_lr)
    base_lr = [group["lr"] for group in optimiser.param_groups]
    size = min(settings.batch_size, len(shard.train_x))
    batches = math.ceil(len(shard.train_x) / size)
    steps, done, device = settings.epochs * batches, 0, shard.train_x.device
    for epoch in range(1, settings.epochs + 1):
        individual.train()
        if freeze_norms:
            hold_norms(individual)
        losses, penalties = LossSum(device), LossSum(device)  # no step waits for the device
        order = torch.randperm(len(shard.train_x), generator=generator)
        for batch in order.to(shard.train_x.device).chunk(batches):
            factor = cosine(done / steps) if settings.schedule == "cosine" else 1.0
            for group, rate in zip(optimiser.param_groups, base_lr, strict=True):
                group["lr"] = rate * factor
            x = shard.train_x[batch]
            if settings.augment:
                x = augment(x, generator, flip=shard.flip)
            loss = F.cross_entropy(individual(x), shard.train_y[batch])  # Eq. 6
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(individual.parameters(), CLIP)
            optimiser.step()
            losses.add(loss, len(batch))
            if retain:  # the other half of Eq. 9
                step = inherited_lr * factor * ewc_lambda
                retain.proximal_step(step, momentum=settings.momentum)
                penalties.add(ewc_lambda * retain().detach().double(), len(batch))
            done += 1
        if epoch % settings.eval_every == 0 or epoch == settings.epochs:
            means = [each.total() / len(shard.train_x) for each in (losses, penalties)]
            outcome.record(epoch, *measure(logits_of, *tests), *means)
        epoch_over(epoch)
    outcome.extras["train_accuracy"] = measure(logits_of, shard.train_x, shard.train_y)[0]
    outcome.seconds = time.perf_counter() - started
    return outcome


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training before its first epoch: what ``train`` is given, as one value.

    ``learngene.adaptation.together`` runs many of one form in shared kernels.
    """

    individual: Individual
    shard: ShardData
    settings: IndividualSettings
    generator: torch.Generator
    retain: Retain | None = None
    freeze_norms: bool
    ewc_lambda: float = 0.0
    extras: dict[str, float] = field(default_factory=dict)  # further ones, of the preparation

    def run(self) -> Outcome:
        """Train alone; ``individual`` is changed in place."""
        outcome = train(
            self.individual,
            self.shard,
            self.settings,
            self.generator,
            self.retain,
            freeze_norms=self.freeze_norms,
            ewc_lambda=self.ewc_lambda,
        )
        outcome.extras |= self.extras
        return outcome


def decay_groups(parameters: Iterable[Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """An optimiser's groups: filters and matrices decay, norms, biases and scales do not."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def hold_norms(module: torch.nn.Module) -> None:
    """Have norms keep their statistics, whatever passes through them."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()


def cosine(progress: float) -> float:
    """Learning-rate factor at ``progress`` 0..1: half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def features(individual: Individual | Transferred, x: Tensor, batch_size: int = 256) -> Tensor:
    """What the classifier sees of images (N, C, H, W): (N, D), in evaluation mode."""
    individual.eval()
    return torch.cat([individual.features(part) for part in x.split(batch_size)])


def shard_features(
    individual: Individual | Transferred,
    shard: ShardData,
    embed: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Features of the shard's views, (N, D), and their labels, (N,).

    Every method that starts from class means, answers from the shard's features or trains a head on
    them takes them from here: equal terms.

    Args:
        embed: what gives features of images (B, C, H, W); None: ``features``.
    """
    embed = embed or (lambda x: features(individual, x))
    views, labels = shard_views(shard)
    return embed(views), labels


def shard_views(shard: ShardData) -> tuple[Tensor, Tensor]:
    """The shard's images and, where flips are allowed, their mirror images, and moved ones where
    the shard has them (``individual.moved_views``); with their labels."""
    views = still_views(shard.train_x, mirror=shard.flip, moved=shard.moved)
    return torch.cat(views), shard.train_y.repeat(len(views))


def rates(settings: IndividualSettings, shard: ShardData) -> tuple[float, float]:
    """``lr`` and ``inherited_lr``, or what stands for them where they are not set.

    What was inherited knows more than a small shard can say: with 20 images a class already the
    classifier alone loses a point at 0.01 and none at 0.002; with 100 images seven layers gained
    two points more at 0.01 than at 0.002 (docs/FINDINGS.md).
    """
    grown = min(RATE_OF_AN_IMAGE * len(shard.train_x) / shard.ways, LARGEST_RATE)
    lr = grown if settings.lr is None else settings.lr
    return lr, lr if settings.inherited_lr is None else settings.inherited_lr


def sgd(
    individual: Individual | Transferred,
    settings: IndividualSettings,
    lr: float,
    inherited_lr: float,
) -> torch.optim.Optimizer:
    """SGD. What is inherited does not decay: the retain loss says where to stay. Nor do layers that
    start as the identity: decay would take away what they hand on."""
    drawn = [p for part in (individual.stem, individual.head) for p in part.parameters()]
    inherited = [p for p in individual.top.parameters() if p.requires_grad]
    groups = [
        *decay_groups(drawn, settings.weight_decay),
        {"params": list(individual.own.parameters()), "weight_decay": 0.0},
        {"params": inherited, "lr": inherited_lr, "weight_decay": 0.0},
    ]
    some = [group for group in groups if group["params"]]
    return torch.optim.SGD(some, lr=lr, momentum=settings.momentum)


@torch.no_grad()
def measure(
    logits_of: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, views: int = 1
) -> tuple[float, float]:
    """Accuracy, 0 to 1, and mean cross-entropy, nats, of images (N, ...) with labels (N,).

    Args:
        logits_of: of a part of ``x``, (B, ways); also logarithms of probabilities.
        views: of each image, as ``ShardData.test_views``; their probabilities are averaged.
    """
    logits = torch.cat([logits_of(part) for part in x.split(256)])
    right, loss = scores(logits, y, views)
    return int(right) / (len(y) // views), float(loss)


def scores(logits: Tensor, y: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """How many images are named right, and their mean cross-entropy, nats; as ``measure``."""
    log_p = F.log_softmax(logits, dim=1).unflatten(0, (views, -1)).logsumexp(0) - math.log(views)
    y = y[: len(log_p)]
    return (log_p.argmax(1) == y).sum(), F.nll_loss(log_p, y)
