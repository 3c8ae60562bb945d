"""The methods that a client can run, by name. One file a method.

A method is a function of the client's context that returns its curves. It never sees another
client's shard, nor what another method trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from clients.shard import ShardData
from clients.training import Outcome
from learngene.seeding import torch_generator


@dataclass(frozen=True)
class ClientContext:
    """What a method may use: the task from the server, its payload, its shard, its generators."""

    task: dict[str, Any]
    payload: dict[str, np.ndarray]
    shard: ShardData
    device: torch.device
    client: int
    round: int
    generator: Callable[[str], torch.Generator]  # by phase; equal phases give equal draws

    def as_method(self, name: str) -> ClientContext:
        """The same client with the draws of another method, and without this one's payload."""
        drawn = generators(self.task["seed"], name, self.round, self.client)
        return replace(self, payload={}, generator=drawn)


def generators(seed: int, method: str, round: int, client: int) -> Callable[[str], torch.Generator]:
    """A method's generators, by phase."""
    return lambda phase: torch_generator(seed, f"client-{method}-{phase}", round, client)


Method = Callable[[ClientContext], Outcome]


def find(name: str) -> Method:
    """The method called ``name``.

    Raises:
        KeyError: there is none.
    """
    from clients.methods import learngene, scratch

    return {"learngene": learngene.run, "scratch": scratch.run}[name]
