"""The opponents' backbone: an individual's layers, all of them trained by the method.

Width, pools and features are the individual's: every method has the network that scratch trains,
the paper's seven full convolutions. What a method puts behind it is the method's matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learngene.adaptation.training import Outcome, measure
from learngene.methods.base import ClientContext, Factory, Payload
from learngene.networks.individual import Individual
from learngene.networks.layers import arrays_of, load_arrays, shape_problem, state_of
from learngene.seeding import torch_generator

Head = Callable[[int, torch.Generator], nn.Module]  # of (features, generator)


def draw(factory: Factory, head: Head | None = None) -> Individual:
    """A random backbone on the factory's device; ``head`` makes what comes behind it."""
    card, channels = body_card(factory.width, factory.block), factory.images.dataset.image_shape[0]
    network = body_of(card, channels, head, factory.generator("weights"))
    return network.to(factory.images.device).to(memory_format=torch.channels_last)


def rebuild(
    context: ClientContext,
    head: Head | None = None,
    change: Callable[[Individual], Individual] = lambda network: network,
) -> Individual:
    """A payload's backbone at the client, and the head where it travels along.

    Args:
        head: makes the head that the payload then fills; None = nothing behind the backbone, so
            that the network gives its features.
        change: done to the network before it is filled.

    Raises:
        ValueError: the arrays are not exactly those that the network needs.
    """
    network = body_of(context.card, context.shard.train_x.shape[1], head)
    fill(change(network), context.payload)
    return network.to(context.device).to(memory_format=torch.channels_last)


def body_card(width: float, block: str | None) -> dict[str, Any]:
    """What ``body_of`` reads; plain layers are said by nothing."""
    return {"width": width} | ({} if block in (None, "plain") else {"block": block})


def body_of(
    card: Mapping[str, Any],
    channels: int,
    head: Head | None = None,
    generator: torch.Generator | None = None,
) -> Individual:
    """The backbone that a payload's card describes, with weights from ``generator`` (by default one
    of the seed 0) until its arrays fill it; then those of ``head``, or nothing behind it."""
    drawn = generator or torch_generator(0, "body")
    network = Individual(
        ways=1,
        width=card["width"],
        head="prototype",
        generator=drawn,
        channels=channels,
        block=card.get("block", "plain"),
    )
    network.head = head(network.feature_count, drawn) if head else nn.Identity()
    return network


def fill(module: nn.Module, arrays: dict[str, np.ndarray]) -> None:
    """Load ``arrays``; batch counters, which do not travel, keep their start.

    Raises:
        ValueError: an array is missing, has no place, or another shape.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    if problem := shape_problem(shapes, {n: v.shape for n, v in state_of(module).items()}):
        raise ValueError(problem)
    load_arrays(module, arrays)


def payload_of(
    factory: Factory, individual: Individual, *, head: bool = False, **card: Any
) -> Payload:
    """What a client needs of ``individual``; its head stays behind unless it is asked for."""
    arrays = arrays_of(individual)
    if not head:
        arrays = {name: array for name, array in arrays.items() if not name.startswith("head.")}
    return Payload(arrays, body_card(factory.width, factory.block) | card)


@torch.no_grad()
def evaluate_once(context: ClientContext, log_probabilities: Callable[[Tensor], Tensor]) -> Outcome:
    """The outcome of a method that answers without training: one point, at epoch 0.

    Args:
        log_probabilities: of (B, C, H, W) images, (B, ways).
    """
    shard, outcome = context.shard, Outcome()
    train_accuracy, train_loss = measure(log_probabilities, shard.train_x, shard.train_y)
    test = measure(log_probabilities, shard.test_x, shard.test_y, shard.test_views)
    outcome.record(0, *test, train_loss)
    outcome.extras["train_accuracy"] = train_accuracy
    return outcome
