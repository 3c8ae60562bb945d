"""The methods that a client can run, by name. One file a method.

A method is a function of the client's context that returns its curves. It never sees another
client's shard, nor what another method trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from clients.shard import ShardData
from clients.training import Outcome


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


Method = Callable[[ClientContext], Outcome]


def find(name: str) -> Method:
    """The method called ``name``.

    Raises:
        KeyError: there is none.
    """
    from clients.methods import learngene, scratch

    return {"learngene": learngene.run, "scratch": scratch.run}[name]
