"""What a method is: a half at the factory and a half at the client, and what travels between them.

A method module holds ``METHOD``, a value of class ``Method``. Its factory half is one of

- ``pretrain(factory) -> Payload``: trained on the factory's base images, within a budget;
- ``take(collective) -> Payload``: read off the finished collective;
- neither: nothing is sent (scratch), or the learngene itself (``server.factory`` makes it).

Its client half is ``adapt(context) -> Outcome``: payload and shard in, curves out. A method that is
trained among the clients has ``update(context) -> Update``, too: its part in a federated round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learngene.adaptation.training import Outcome
from learngene.data.augment import augment, to_batch
from learngene.data.dataset import World
from learngene.data.partition import ShardData
from learngene.networks.collective import Collective
from learngene.seeding import generator, torch_generator


@dataclass(frozen=True)
class Payload:
    """What a client is sent for a method: named float32 arrays, and a few words in plain JSON."""

    arrays: dict[str, np.ndarray]
    card: dict[str, Any]

    @property
    def bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def parameters(self) -> int:
        return sum(array.size for array in self.arrays.values())


@dataclass(frozen=True)
class BaseImages:
    """The factory's labelled images: those that the collective is trained on, and no others."""

    world: World
    rows: tuple[np.ndarray, ...]  # of the training images of each base class
    device: torch.device
    side: int | None = None  # of the training crops in pixels, as the collective's
    zoom: float = 1.0  # smallest side of a crop as a share of the image, as the collective's

    @property
    def classes(self) -> int:
        return len(self.rows)

    def batch(self, rows: np.ndarray, chance: torch.Generator) -> Tensor:  # (B, C, side, side)
        """Augmented images, as the collective sees them."""
        x = to_batch(self.world.train_images[rows], self.device)
        return augment(x, chance, flip=self.world.flip, side=self.side, zoom=self.zoom)


Progress = Callable[[int, int, float], None]  # steps done, steps in all, loss


@dataclass(frozen=True)
class Factory:
    """What a method may use before any client is known."""

    name: str
    images: BaseImages
    settings: Mapping[str, Any]  # the method's own group of the configuration
    budget: int  # image passes: an image that goes forward and backward once is one
    ways: int  # classes of a client's task
    width: float
    stem: str  # of the seven layers, as scratch's
    seed: int
    bf16: bool  # convolutions in bfloat16, where the collective computes so, too
    # Half-done work: what was last kept of it, and where to keep it (tensors, plain JSON).
    found: tuple[dict[str, Tensor], dict[str, Any]] | None = None
    keep: Callable[[dict[str, Tensor], dict[str, Any]], None] = lambda state, card: None
    progress: Progress = lambda done, steps, loss: None

    def chance(self, phase: str, step: int = 0) -> torch.Generator:
        return torch_generator(self.seed, f"pretrain-{self.name}-{phase}", round=step)

    def order(self, phase: str, step: int = 0) -> np.random.Generator:
        return generator(self.seed, f"pretrain-{self.name}-{phase}", round=step)

    def autocast(self, cache: bool = True) -> AbstractContextManager:
        """Convolutions in bfloat16 where ``bf16`` says so. ``cache`` keeps a weight's narrow copy
        for the next use; ``torch.func`` wraps weights anew at every step and must not meet one."""
        kind = self.images.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.bf16, cache_enabled=cache)


@dataclass(frozen=True)
class ClientContext:
    """What a method may use at a client. It never sees another's shard, nor another method's work.

    ``task`` is the server's message as plain JSON, ``card`` and ``payload`` are the method's own.
    """

    task: dict[str, Any]
    payload: dict[str, np.ndarray]
    shard: ShardData
    device: torch.device
    client: int
    round: int
    generator: Callable[[str], torch.Generator]  # by phase; equal phases give equal draws
    card: dict[str, Any] = field(default_factory=dict)

    def as_method(self, name: str) -> ClientContext:
        """The same client with the draws of another method, and without this one's payload."""
        drawn = generators(self.task["seed"], name, self.round, self.client)
        return replace(self, payload={}, card={}, generator=drawn)


@dataclass(frozen=True)
class Update:
    """What a client sends up in a federated round: weights, and what they were trained on."""

    arrays: dict[str, np.ndarray]  # float32
    images: int
    loss: float  # mean over the local training
    seconds: float

    def metrics(self) -> dict[str, float | int]:
        return {"images": self.images, "loss": self.loss, "seconds": self.seconds}


def generators(seed: int, method: str, round: int, client: int) -> Callable[[str], torch.Generator]:
    """A method's generators at a client, by phase."""
    return lambda phase: torch_generator(seed, f"client-{method}-{phase}", round, client)


@dataclass(frozen=True)
class Method:
    """The two halves of a method."""

    adapt: Callable[[ClientContext], Outcome]
    pretrain: Callable[[Factory], Payload] | None = None
    take: Callable[[Collective], Payload] | None = None
    update: Callable[[ClientContext], Update] | None = None  # trained among the clients first
    for_ways: bool = False  # the payload depends on the number of a client's classes
    # It answers without epochs (``seven.one_point``): one point, at epoch 0. Other curves end at
    # ``individual.epochs``, those of the MAML family at their own ``client_steps``.
    at_once: bool = False
