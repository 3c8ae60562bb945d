"""The opponents' backbone: the individual's seven layers, all of them their own.

Width, pools and features are the individual's, the stem's kind is scratch's, so that every method
has the network that scratch trains. What a method puts behind it is its own matter.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learngene.adaptation.training import Outcome
from learngene.methods.base import ClientContext, Factory, Payload
from learngene.networks.individual import Individual
from learngene.networks.layers import FEATURE_SIDE

Head = Callable[[int, torch.Generator], nn.Module]  # of (features, generator)
INHERITED = 3  # how the seven layers are counted in an Individual; without effect here


def draw(factory: Factory, head: Head | None = None) -> Individual:
    """Seven layers at random on the factory's device; ``head`` makes what comes behind them."""
    chance = factory.chance("weights")
    made = drawn(factory.stem, factory.width, factory.images.world.image_shape[0], chance)
    if head is not None:
        made.head = head(feature_count(made), chance)
    return made.to(factory.images.device).to(memory_format=torch.channels_last)


def rebuild(
    context: ClientContext,
    head: Head | None = None,
    change: Callable[[Individual], Individual] = lambda made: made,
) -> Individual:
    """The seven layers of a payload at the client, and the head where it travels with them.

    Args:
        head: makes the head that the payload then fills; None = nothing behind the layers.
        change: done to the network before it is filled.

    Raises:
        ValueError: the arrays are not exactly those that the network needs.
    """
    card, channels = context.card, context.shard.train_x.shape[1]
    chance = context.generator("weights")
    made = drawn(card["stem"], card["width"], channels, chance)
    if head is not None:
        made.head = head(feature_count(made), chance)
    fill(change(made), context.payload)
    return made.to(context.device).to(memory_format=torch.channels_last)


def drawn(stem: str, width: float, channels: int, chance: torch.Generator) -> Individual:
    """Seven layers with weights from ``chance``, and nothing behind them."""
    made = Individual(stem_kind=stem, inherited=INHERITED, ways=1, width=width, head="prototype",
                      generator=chance, channels=channels)  # fmt: skip
    made.head = nn.Identity()
    return made


def feature_count(individual: Individual) -> int:
    """Features that the seven layers give of an image."""
    return individual.top[-1].conv.out_channels * FEATURE_SIDE**2


def fill(module: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Load ``arrays``; batch counters, which do not travel, keep their start.

    Raises:
        ValueError: an array is missing, has no place, or another shape.
    """
    due = {
        name: tuple(value.shape)
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    given = {name: array.shape for name, array in arrays.items()}
    if due != given:
        wrong = sorted(n for n in due.keys() | given.keys() if due.get(n) != given.get(n))
        raise ValueError(
            f"array {wrong[0]} has shape {given.get(wrong[0])}, the network needs "
            f"{due.get(wrong[0])}"
        )
    state = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    module.load_state_dict(state, strict=False)


def arrays_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Weights and statistics as float32 arrays."""
    return {
        name: np.ascontiguousarray(value.detach().float().cpu().numpy())
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def payload_of(factory: Factory, individual: Individual, *, head: bool = False,
               **card: Any) -> Payload:  # fmt: skip
    """What a client needs of ``individual``; its head stays behind unless it is asked for."""
    arrays = arrays_of(individual)
    if not head:
        arrays = {name: array for name, array in arrays.items() if not name.startswith("head.")}
    return Payload(arrays, {"stem": factory.stem, "width": factory.width, **card})


@torch.no_grad()
def one_point(context: ClientContext, log_probabilities: Callable[[Tensor], Tensor],
              started: float) -> Outcome:  # fmt: skip
    """The outcome of a method that answers without training: one point, at epoch 0.

    Args:
        log_probabilities: of (B, C, H, W) images, (B, ways).
        started: when the work began (``time.perf_counter``).
    """
    shard, outcome = context.shard, Outcome()
    train = _score(log_probabilities, shard.train_x, shard.train_y)
    accuracy, loss = _score(log_probabilities, shard.test_x, shard.test_y)
    outcome.epochs.append(0)
    outcome.accuracy.append(accuracy)
    outcome.loss.append(loss)
    outcome.train_loss.append(train[1])
    outcome.penalty.append(0.0)
    outcome.extras["train_accuracy"] = train[0]
    outcome.seconds = time.perf_counter() - started
    return outcome


def _score(
    log_probabilities: Callable[[Tensor], Tensor], x: Tensor, y: Tensor
) -> tuple[float, float]:
    said = torch.cat([log_probabilities(part) for part in x.split(256)])
    return int((said.argmax(1) == y).sum()) / len(y), float(F.nll_loss(said, y))
