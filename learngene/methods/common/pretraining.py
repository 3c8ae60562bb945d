"""Training at the factory: one loop for every method, and the two kinds of batches it is fed.

Everything random in a step comes from (seed, method, phase, step), so a training that was taken up
half-way ends as one that was not. There is no early stopping and no look at any held-out class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from learngene.collective.sampling import class_positions, one_cycle
from learngene.methods.base import Factory
from learngene.networks.individual import Individual
from learngene.utils.settings import setting
from learngene.utils.steps import LossSum, rate_options, set_rate, steps_to_a_look

CHECKPOINTS = 10  # times that half-done work is kept in the course of a phase
CLIP = 5.0  # largest norm of a step's gradient, as in the collective's training

Drawn = tuple[Tensor, Tensor]  # images by position, (B,), and what is drawn for their views, (B, 4)


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


@dataclass(frozen=True)
class Episodes:
    """How episodes are drawn: ``ways`` base classes (all of them, where there are fewer)."""

    factory: Factory
    ways: int
    shots: int
    queries: int

    def __post_init__(self) -> None:
        images, per_class = self.factory.images, self.shots + self.queries
        object.__setattr__(self, "ways", min(self.ways, images.classes))
        if (smallest := min(len(rows) for rows in images.rows)) < per_class:
            raise ValueError(
                f"an episode takes {per_class} images of a class, one base class has {smallest}"
            )

    @property
    def images(self) -> int:
        """Of one episode."""
        return self.ways * (self.shots + self.queries)

    def draw(self, number: int) -> Drawn:
        """The images of episode ``number``, class by class."""
        images, order = self.factory.images, self.factory.order("episodes", number)
        classes = order.choice(images.classes, self.ways, replace=False)
        per_class = self.shots + self.queries
        starts = np.cumsum([0, *(len(rows) for rows in images.rows)])
        chosen = [
            starts[c] + order.choice(len(images.rows[c]), per_class, replace=False) for c in classes
        ]
        chance = self.factory.generator("episodes-augment", number)
        return images.draw(np.concatenate(chosen), chance)

    @cached_property
    def labels(self) -> tuple[Tensor, Tensor]:
        """Of support and query images, on the device."""
        ways, device = torch.arange(self.ways), self.factory.images.device
        support, query = (ways.repeat_interleave(n) for n in (self.shots, self.queries))
        return support.to(device), query.to(device)

    def lay_out(self, positions: Tensor, draws: Tensor) -> Episode:
        """The episode of what ``draw`` has drawn."""
        x = self.factory.images.batch(positions, draws).unflatten(0, (self.ways, -1))
        support, query = (
            part.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            for part in x.split([self.shots, self.queries], dim=1)
        )
        return Episode(support, self.labels[0], query, self.labels[1], self.ways)


def draw_batches(factory: Factory, size: int) -> tuple[Callable[[int], Drawn], Tensor]:
    """Batches of all base classes, epoch after epoch, by step; and the labels by position."""
    images = factory.images
    labels = class_positions(images.rows)
    a_pass = len(labels) // size

    @lru_cache(maxsize=1)
    def order(epoch: int) -> np.ndarray:
        return factory.order("classes-order", epoch).permutation(len(labels))

    def draw(step: int) -> Drawn:
        epoch, place = divmod(step, a_pass)
        chosen = order(epoch)[place * size : (place + 1) * size]
        return images.draw(chosen, factory.generator("classes-augment", step))

    return draw, labels.to(images.device)


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
    draw, labels = draw_batches(factory, size)

    def backward(positions: Tensor, draws: Tensor) -> Tensor:
        loss = loss_of(factory.images.batch(positions, draws), labels[positions])
        loss.backward()
        return loss

    steps = max(1, budget // size)
    sgd = settings.optimiser == "sgd"
    rate, decay = settings.lr, settings.weight_decay
    run_steps(factory, module, draw, backward, steps, rate, decay, sgd=sgd)


def by_episodes(
    factory: Factory,
    network: Individual,
    loss_of: Callable[[Tensor, Tensor, Episode], Tensor],
    *,
    settings: EpisodeSettings | None = None,
    budget: int | None = None,
    embed: Callable[[Tensor], Tensor] | None = None,
    number: int = 0,
    static: bool = True,
) -> None:
    """Train ``network`` on episodes with Adam.

    Args:
        loss_of: loss of an episode, from the features of its support and query images, (N, ...)
            and (Q, ...).
        settings: of the episodes; None = the method's.
        budget: image passes; None = the factory's.
        embed: features of images; None = the network's, (B, D).
        number: of this phase among the method's, from 0.
        static: as ``run_steps`` takes it.
    """
    settings = settings or factory.settings
    episodes = Episodes(factory, settings.ways, settings.shots, settings.queries)

    def backward(positions: Tensor, draws: Tensor) -> Tensor:
        task = episodes.lay_out(positions, draws)
        with factory.autocast():
            features = (embed or network.features)(torch.cat([task.support_x, task.query_x]))
        support, query = features.float().split([len(task.support_y), len(task.query_y)])
        loss = loss_of(support, query, task)
        loss.backward()
        return loss

    passes = factory.budget if budget is None else budget
    steps = max(1, passes // episodes.images)
    draw = episodes.draw
    run_steps(factory, network, draw, backward, steps, settings.lr, number=number, static=static)


def run_steps(
    factory: Factory,
    module: nn.Module,
    draw: Callable[[int], Drawn],
    backward: Callable[[Tensor, Tensor], Tensor],
    steps: int,
    lr: float,
    weight_decay: float = 0.0,
    number: int = 0,
    *,
    sgd: bool = False,
    static: bool = True,
) -> None:
    """Take ``steps`` steps of Adam (or SGD) with a one-cycle rate; go on from the checkpoint.

    Args:
        draw: which images a step sees, and what is drawn for their views.
        backward: fills the gradients of ``module`` from what was drawn and returns the loss.
        lr: the peak rate.
        number: of this phase among the method's, from 0.
        static: ``backward`` does the same work on the same shapes at every step and never waits
            for the device, so that it can be recorded (``utils.steps``).

    Raises:
        ValueError: the loss is not finite.
    """
    # Adam, as Chen et al. 2019 train every method: a linear head on some 500 features without a
    # norm of their own diverges under SGD at rates that are right for the layers in front of it.
    device, form = factory.images.device, factory.step_form if static else None
    parameters, rate = module.parameters(), rate_options(lr, device, form)
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(parameters, momentum=0.9, nesterov=True, weight_decay=weight_decay, **rate)
        if sgd
        else torch.optim.Adam(
            parameters, weight_decay=weight_decay, capturable=form is not None, **rate
        )
    )
    start = 0
    if factory.checkpoint is not None:
        state, card = factory.checkpoint
        if card["phase"] > number:
            return
        if card["phase"] == number:
            start = card["step"]
            _restore(module, optimiser, state)
    losses, look = LossSum(device), steps_to_a_look(device)

    def work(positions: Tensor, draws: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        losses.add(backward(positions, draws))
        torch.nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimiser.step()

    take = work if form is None else form(work)
    module.train()
    for step in range(start, steps):
        set_rate(optimiser, lr * one_cycle(step / steps))
        take(*draw(step))
        done = step + 1
        keeps = done % max(1, steps // CHECKPOINTS) == 0
        if keeps or done % look == 0 or done == steps:
            if (mean := losses.mean(done - start)) is None:
                raise ValueError(
                    f"the loss of {factory.name} is not finite by step {done}: lower its lr"
                )
            if done % look == 0:
                factory.progress(done, steps, mean)
        if keeps:
            factory.keep(_state(module, optimiser), {"phase": number, "step": done})
    optimiser.zero_grad(set_to_none=True)  # gradients may lie in a recording's memory


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
