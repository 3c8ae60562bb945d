"""Training at the factory: one loop for every method, and the two kinds of batches it is fed.

Everything random in a step comes from (seed, method, phase, step), so a training that was taken up
half-way ends as one that was not. There is no early stopping and no look at any held-out class.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from learngene.collective.sampling import class_positions, one_cycle
from learngene.methods.base import Factory
from learngene.networks.individual import Individual
from learngene.utils.settings import setting

CHECKPOINTS = 10  # times that half-done work is kept in the course of a phase
CLIP = 5.0  # largest norm of a step's gradient, as in the collective's training


@dataclass
class BudgetSettings:
    """What every method that is trained at the factory may be asked for."""

    # times the image passes that the other methods have: above 1, no equal terms
    budget_factor: float = setting(1.0, gt=0, le=1000)


@dataclass
class SupervisedSettings(BudgetSettings):
    """Training on all base classes at once."""

    # adam | sgd (momentum 0.9, Nesterov's, as the collective's): at the factory
    optimiser: str = setting("adam", choices=("adam", "sgd"))
    lr: float = setting(0.001, gt=0, le=10)  # peak learning rate at the factory
    batch_size: int = setting(32, ge=2, le=65_536)  # images
    weight_decay: float = setting(0.0, ge=0, le=1)


@dataclass
class EpisodeSettings(BudgetSettings):
    """Training on episodes, few-shot tasks of base classes."""

    lr: float = setting(0.001, gt=0, le=10)  # peak learning rate (Adam)
    ways: int = setting(16, ge=2, le=1000)  # base classes of an episode
    shots: int = setting(10, ge=1, le=1000)  # support images of a class
    queries: int = setting(5, ge=1, le=1000)  # query images of a class


@dataclass(frozen=True)
class Episode:
    """A task of base classes: support and query images, each sorted by class."""

    support_x: Tensor  # (ways * shots, C, H, W)
    support_y: Tensor
    query_x: Tensor  # (ways * queries, C, H, W)
    query_y: Tensor
    ways: int


def draw_episode(factory: Factory, step: int, *, ways: int, shots: int, queries: int) -> Episode:
    """The episode of a step: ``ways`` base classes (all of them, where there are fewer)."""
    images, order = factory.images, factory.order("episodes", step)
    ways = min(ways, images.classes)
    per_class = shots + queries
    smallest = min(len(rows) for rows in images.rows)
    if smallest < per_class:
        raise ValueError(
            f"an episode takes {per_class} images of a class, one base class has {smallest}"
        )
    classes = order.choice(images.classes, ways, replace=False)
    rows = np.stack([order.choice(images.rows[c], per_class, replace=False) for c in classes])
    x = images.batch(rows.reshape(-1), factory.generator("episodes-augment", step))
    x = x.unflatten(0, (ways, per_class))
    labels = torch.arange(ways, device=images.device)

    def flat(part: Tensor) -> Tensor:
        return part.flatten(0, 1).contiguous(memory_format=torch.channels_last)

    return Episode(
        flat(x[:, :shots]),
        labels.repeat_interleave(shots),
        flat(x[:, shots:]),
        labels.repeat_interleave(queries),
        ways,
    )


def batches(factory: Factory, size: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Batches of all base classes: ``batch(step)`` gives images and labels, epoch after epoch."""
    images = factory.images
    rows = np.concatenate(images.rows)
    labels = class_positions(images.rows)
    size = min(size, len(rows))
    a_pass = len(rows) // size

    @lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return factory.order("classes-order", epoch).permutation(len(rows))

    def batch(step: int) -> tuple[Tensor, Tensor]:
        epoch, place = divmod(step, a_pass)
        chosen = order(epoch)[place * size : (place + 1) * size]
        x = images.batch(rows[chosen], factory.generator("classes-augment", step))
        return x, labels[torch.from_numpy(chosen)].to(images.device)

    return batch


def supervised(
    factory: Factory,
    module: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    *,
    budget: int,
) -> None:
    """Train ``module`` to tell all base classes apart, for ``budget`` image passes.

    Args:
        loss_of: loss of a batch (B, C, H, W) with labels (B,).
    """
    settings: SupervisedSettings = factory.settings
    size = min(settings.batch_size, sum(len(rows) for rows in factory.images.rows))
    batch = batches(factory, size)

    def train_step(step: int) -> float:
        loss = loss_of(*batch(step))
        loss.backward()
        return float(loss.detach())

    steps = max(1, budget // size)
    sgd = settings.optimiser == "sgd"
    run_steps(factory, module, train_step, steps, settings.lr, settings.weight_decay, sgd=sgd)


def by_episodes(
    factory: Factory,
    network: Individual,
    loss_of: Callable[[Tensor, Tensor, Episode], Tensor],
    *,
    settings: EpisodeSettings | None = None,
    budget: int | None = None,
    embed: Callable[[Tensor], Tensor] | None = None,
    number: int = 0,
) -> None:
    """Train ``network`` on episodes with Adam.

    Args:
        loss_of: loss of an episode, from the features of its support and query images, (N, ...)
            and (Q, ...).
        settings: of the episodes; None = the method's.
        budget: image passes; None = the factory's.
        embed: features of images; None = the network's, (B, D).
        number: of this phase among the method's, from 0.
    """
    settings = settings or factory.settings
    shots, queries = settings.shots, settings.queries
    ways = min(settings.ways, factory.images.classes)

    def train_step(step: int) -> float:
        task = draw_episode(factory, step, ways=ways, shots=shots, queries=queries)
        with factory.autocast():
            features = (embed or network.features)(torch.cat([task.support_x, task.query_x]))
        support, query = features.float().split([len(task.support_y), len(task.query_y)])
        loss = loss_of(support, query, task)
        loss.backward()
        return float(loss.detach())

    passes = factory.budget if budget is None else budget
    steps = max(1, passes // (ways * (shots + queries)))
    run_steps(factory, network, train_step, steps, settings.lr, number=number)


def run_steps(
    factory: Factory,
    module: nn.Module,
    train_step: Callable[[int], float],
    steps: int,
    lr: float,
    weight_decay: float = 0.0,
    number: int = 0,
    *,
    sgd: bool = False,
) -> None:
    """Take ``steps`` steps of Adam (or SGD) with a one-cycle rate; go on from the checkpoint.

    Args:
        train_step: ``train_step(step)`` fills the gradients of ``module`` and returns the loss.
        lr: the peak rate.
        number: of this phase among the method's, from 0.

    Raises:
        ValueError: the loss is not finite.
    """
    # Adam, as Chen et al. 2019 train every method: a linear head on some 500 features without a
    # norm of their own diverges under SGD at rates that are right for the layers in front of it.
    parameters = module.parameters()
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(parameters, lr, momentum=0.9, nesterov=True, weight_decay=weight_decay)
        if sgd
        else torch.optim.Adam(parameters, lr, weight_decay=weight_decay)
    )
    start = 0
    if factory.checkpoint is not None:
        state, card = factory.checkpoint
        if card["phase"] > number:
            return
        if card["phase"] == number:
            start = card["step"]
            _restore(module, optimiser, state)
    module.train()
    for step in range(start, steps):
        optimiser.param_groups[0]["lr"] = lr * one_cycle(step / steps)
        optimiser.zero_grad(set_to_none=True)
        loss = train_step(step)
        if not math.isfinite(loss):
            raise ValueError(f"the loss of {factory.name} is {loss} in step {step}: lower its lr")
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimiser.step()
        if step % 10 == 9:
            factory.progress(step + 1, steps, loss)
        if (step + 1) % max(1, steps // CHECKPOINTS) == 0:
            factory.keep(_state(module, optimiser), {"phase": number, "step": step + 1})


def _state(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Weights, and what the optimiser remembers of each parameter, by its place."""
    state = {f"module.{name}": value for name, value in module.state_dict().items()}
    for place, memory in optimiser.state_dict()["state"].items():
        state |= {
            f"optimiser.{place}.{name}": torch.as_tensor(value)
            for name, value in memory.items()
            if value is not None
        }
    return state


def _restore(module: nn.Module, optimiser: torch.optim.Optimizer, state: dict[str, Tensor]) -> None:
    module.load_state_dict(
        {n.removeprefix("module."): v for n, v in state.items() if n.startswith("module.")}
    )
    memory: dict[int, dict[str, Tensor]] = {}
    for name, value in state.items():
        if name.startswith("optimiser."):
            _, place, field = name.split(".")
            memory.setdefault(int(place), {})[field] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": memory})
