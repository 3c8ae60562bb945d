"""Train individuals of one form together: weights stacked, each step one for all of them.

Every client keeps its own draws, batches, statistics, clipping and curves; only kernels are shared
(``torch.func``). Its numbers are those of ``Training.run`` up to the order of float32 sums, and a
client whose training diverges takes no other along.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from learngene.adaptation.retain import distance, pull
from learngene.adaptation.training import (
    CLIP,
    Outcome,
    Training,
    cosine,
    epoch_over,
    hold_norms,
    rates,
    scores,
    sgd,
)
from learngene.data.augment import views
from learngene.utils.settings import check_settings

TEST_IMAGES = 64  # of a client that are looked at at once
UNFOLD_ON: tuple[str, ...] = ("cuda",)  # on a CPU oneDNN's grouped convolution is the faster one


def form_of(training: Training) -> str:
    """What must be equal among trainings that are run together."""
    individual, shard = training.individual, training.shard
    shapes = {name: tuple(value.shape) for name, value in individual.state_dict().items()}
    layers = [(unit.pool, unit.skips) for unit in individual.layers]
    images = tuple(shard.train_x.shape), tuple(shard.test_x.shape), shard.ways
    views = shard.test_views, shard.flip, shard.moved
    how = training.settings, training.freeze_norms, training.ewc_lambda, training.retain is None
    return f"{individual} {shapes} {layers} {individual.side} {images} {views} {how}"


def train_together(trainings: Sequence[Training]) -> list[Outcome]:
    """What ``Training.run`` of each would give.

    Args:
        trainings: of one form (``form_of``). Their individuals stay as they are.

    Returns:
        One outcome each; ``seconds`` is the time of all, divided by their number.
    """
    first, count = trainings[0], len(trainings)
    settings, shard = first.settings, first.shard
    check_settings(settings)
    started, stack = time.perf_counter(), Stack(trainings)
    train_x, train_y, test_x, test_y = (
        torch.stack([getattr(each.shard, name) for each in trainings])
        for name in ("train_x", "train_y", "test_x", "test_y")
    )  # (C, N, ...)
    own = torch.arange(count, device=train_x.device)[:, None]
    images = train_x.shape[1]
    batches = math.ceil(images / min(settings.batch_size, images))
    steps, done = settings.epochs * batches, 0
    outcomes = [Outcome() for _ in trainings]

    def record(epoch: int, train_loss: Tensor, penalty: Tensor) -> None:
        tested = stack.measure(test_x, test_y, shard.test_views)
        numbers = torch.stack([*tested, train_loss, penalty], 1).tolist()
        for outcome, row in zip(outcomes, numbers, strict=True):
            outcome.record(epoch, *row)

    nothing = torch.zeros(count, dtype=torch.float64, device=train_x.device)
    record(0, stack.measure(train_x, train_y, 1)[1], nothing)
    for epoch in range(1, settings.epochs + 1):
        stack.template.train()
        if first.freeze_norms:
            hold_norms(stack.template)
        loss_sum, penalty_sum = nothing, nothing
        orders = [torch.randperm(images, generator=each.generator) for each in trainings]
        for batch in torch.stack(orders).to(train_x.device).chunk(batches, dim=1):
            x, y = train_x[own, batch], train_y[own, batch]
            if settings.augment:
                draws = [torch.rand(x.shape[1], 4, generator=each.generator) for each in trainings]
                moved = views(x.flatten(0, 1), torch.cat(draws), flip=shard.flip)
                x = moved.unflatten(0, x.shape[:2])
            factor = cosine(done / steps) if settings.schedule == "cosine" else 1.0
            loss, penalty = stack.step(x, y, factor)
            loss_sum = loss_sum + loss.double() * batch.shape[1]
            penalty_sum = penalty_sum + penalty.double() * batch.shape[1]
            done += 1
        if epoch % settings.eval_every == 0 or epoch == settings.epochs:
            record(epoch, loss_sum / images, penalty_sum / images)
        epoch_over(epoch)
    named = stack.measure(train_x, train_y, 1)[0].tolist()
    for training, outcome, share in zip(trainings, outcomes, named, strict=True):
        outcome.extras |= {"train_accuracy": share, **training.extras}
        outcome.seconds = (time.perf_counter() - started) / count
    return outcomes


def bytes_of(training: Training) -> int:
    """Memory that a client takes in ``train_together``: a rough estimate, rather too large."""
    individual, shard = training.individual, training.shard
    weights = sum(p.numel() for p in individual.parameters())
    # Itself, stacked, gradient, momentum, a step's; anchor and Fisher, each twice.
    copies = 5 if training.retain is None else 9
    images = 2 * (shard.train_x.numel() + shard.test_x.numel())
    batch = min(training.settings.batch_size, len(shard.train_x))
    side, maps = shard.train_x.shape[-1], 0
    for unit in individual.layers:  # unfolded input; output, normed, and their gradients
        maps += side**2 * (9 * unit.conv.in_channels + 6 * unit.conv.out_channels)
        side = side // 2 if unit.pool else side
    return 4 * (copies * weights + images + max(batch, TEST_IMAGES) * maps)


class Stack:
    """Individuals of one form as one: every weight (C, ...), one entry for each client."""

    def __init__(self, trainings: Sequence[Training]) -> None:
        first = trainings[0]
        self.template = deepcopy(first.individual)
        for unit in self.template.layers if first.shard.train_x.device.type in UNFOLD_ON else ():
            unit.conv = Unfolded(unit.conv)  # type: ignore[assignment]
        self.weights, self.statistics = stack_module_state([t.individual for t in trainings])
        lr, self._inherited_lr = rates(first.settings, first.shard)
        alone = sgd(first.individual, first.settings, lr, self._inherited_lr)
        stacked = {
            id(parameter): self.weights[name]
            for name, parameter in first.individual.named_parameters()
        }
        groups = [
            {**group, "params": [stacked[id(each)] for each in group["params"]]}
            for group in alone.param_groups
        ]
        self._optimiser = torch.optim.SGD(groups, lr=lr)
        self._base_lr = [group["lr"] for group in groups]
        self._momentum, self._ewc_lambda = first.settings.momentum, first.ewc_lambda
        held = [] if first.retain is None else first.retain.parameters
        retains = [each.retain for each in trainings if each.retain is not None]
        self._held = [stacked[id(each)] for each in held]
        self._anchor, self._fisher = (
            [torch.stack(own) for own in zip(*parts, strict=True)]
            for parts in ([r.anchor for r in retains], [r.fisher for r in retains])
        )

    def _logits(self, weights: Any, statistics: Any, x: Tensor) -> Tensor:
        return functional_call(self.template, (weights, statistics), (x,))

    def _loss(self, weights: Any, statistics: Any, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(weights, statistics, x), y)  # Eq. 6

    def step(self, x: Tensor, y: Tensor, factor: float) -> tuple[Tensor, Tensor]:
        """One step of every client on its batch.

        Args:
            x: (C, B, C_in, H, W); ``y``: (C, B).
            factor: of the learning rates.

        Returns:
            L_rec before the step and lambda L_ret after it, (C,) each.
        """
        for group, rate in zip(self._optimiser.param_groups, self._base_lr, strict=True):
            group["lr"] = rate * factor
        losses = torch.vmap(self._loss)(self.weights, self.statistics, x, y)
        self._optimiser.zero_grad(set_to_none=True)
        losses.sum().backward()  # no weight belongs to two clients: the gradient of each loss
        clip_each([weight.grad for weight in self.weights.values() if weight.grad is not None])
        self._optimiser.step()
        losses = losses.detach()
        if not self._held:
            return losses, torch.zeros_like(losses)
        inherited = self._held, self._anchor, self._fisher  # the other half of Eq. 9
        step = self._inherited_lr * factor * self._ewc_lambda
        pull(*inherited, step / (1 - self._momentum))
        with torch.no_grad():
            return losses, self._ewc_lambda * torch.vmap(distance)(*inherited)

    @torch.no_grad()
    def measure(self, x: Tensor, y: Tensor, views: int) -> tuple[Tensor, Tensor]:
        """Accuracy and mean cross-entropy of every client, (C,) in float64; as ``measure``."""
        self.template.eval()
        parts = x.split(TEST_IMAGES, dim=1)
        logits = [torch.vmap(self._logits)(self.weights, self.statistics, part) for part in parts]
        right, loss = torch.vmap(lambda a, b: scores(a, b, views))(torch.cat(logits, 1), y)
        return right.double() / (y.shape[1] // views), loss.double()


def clip_each(gradients: Sequence[Tensor]) -> None:
    """``clip_grad_norm_`` for each client by itself: gradients are (C, ...), changed in place."""
    norms = [g.reshape(len(g), -1).norm(dim=1) for g in gradients]
    factor = (CLIP / (torch.stack(norms).norm(dim=0) + 1e-6)).clamp(max=1.0)  # (C,)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))


class Unfolded(nn.Module):
    """A unit's convolution as a matrix product, of which ``vmap`` makes a batched one.

    Of a convolution it makes a grouped one, for which cuDNN has no fast kernel (pytorch issue
    70954).
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = convolution.weight

    def forward(self, x: Tensor) -> Tensor:  # (B, c_in, H, W) -> (B, c_out, H, W)
        columns = F.unfold(x, 3, padding=1)  # (B, c_in * 9, H * W)
        product = torch.einsum("ok,bkl->bol", self.weight.flatten(1), columns)
        return product.unflatten(2, x.shape[2:])
