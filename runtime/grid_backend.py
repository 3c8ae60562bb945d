"""Flower's own engine as a backend: a grid that is given from outside, by ``flwr run``.

The nodes are there already: simulated ones, or SuperNodes on other machines. Strategy, rounds,
guard, accounting and kept answers are those of the other backends; ``OutsideGrid.run`` stands where
they start Ray or a loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import WARNING, getLogger
from threading import Event
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid

from learngene.errors import InputError
from protocol.callbacks import RunCallback
from runtime.resources import RuntimeSettings, client_device
from server.server_app import WatchedGrid, make_server_app
from strategies.learngene import LearngeneStrategy
from strategies.nodes import Nodes, TooFewNodes

POLL_S = 1.0  # a look for replies is a request over the network, which the SuperLink logs
SIMULATED_S, DEPLOYED_S = 30.0, 120.0  # for the nodes to be there, and to say who they are
# Beyond a client's own time: its process starts, and the message and the reply are on their way.
ON_THE_WAY_S = 60.0
START = "Start more SuperNodes, or write runtime.min_answered in overrides: enough to begin with"
OWN = "Give each SuperNode a partition-id of its own in --node-config"


@dataclass
class OutsideGrid:
    """The nodes of ``flwr run``.

    Args:
        command: what was typed, for the results.
        deployed: they are SuperNodes, each with an owner and a device of its own, and each message
            starts a process there; else they are simulated here and hold shards of the one world.
    """

    grid: Grid
    context: Context
    command: Sequence[str]
    deployed: bool
    nodes: Nodes | None = None  # of a deployment, whose nodes are asked once for all rounds

    @classmethod
    def of(cls, grid: Grid, context: Context, command: Sequence[str]) -> OutsideGrid:
        """As Flower's engine calls a ServerApp: in a simulation, or on a SuperLink."""
        from flwr.superlink.grid import InMemoryGrid  # late: brings the SuperLink's database

        return cls(grid, context, command, deployed=not isinstance(grid, InMemoryGrid))

    def connect(self, num_clients: int, least: int) -> None:
        """Wait for the nodes before anything is trained; those of a deployment say who they are.

        Args:
            least: so many are enough, where the others may come later (a deployment).

        Raises:
            InputError: there are too few, or they are not the clients that are due.
        """
        least = max(1, least) if self.deployed else num_clients
        wait_s = DEPLOYED_S if self.deployed else SIMULATED_S
        nodes = Nodes(num_clients, wait_s=wait_s, poll_s=POLL_S, least=least, lasting=self.deployed)
        resize = f'--federation-config "num-supernodes={num_clients}"'
        fix = START if self.deployed else f"Write {resize}"
        try:
            if self.deployed:
                watched = WatchedGrid(self.grid, Event(), lambda reply: None, poll_s=POLL_S)
                nodes.discover(watched)
                if len(nodes.clients) < least:
                    raise TooFewNodes(f"{len(nodes.clients)} said who they are: {nodes.unknown}")
                self.nodes = nodes
                return
            there = nodes.wait(self.grid)
        except TooFewNodes as error:
            raise InputError("num-clients", num_clients, str(error), fix) from error
        except RuntimeError as error:
            raise InputError("num-clients", num_clients, str(error), OWN) from error
        if len(there) > num_clients:
            problem = f"the federation has {len(there)} nodes"
            fix = f"Write num-clients={len(there)}, or {resize}"
            raise InputError("num-clients", num_clients, problem, fix)

    def run(
        self,
        strategy: LearngeneStrategy,
        rounds: int,
        runtime: RuntimeSettings,
        callback: RunCallback,
    ) -> None:
        """All rounds, as ``runtime.ray_backend.simulate``; what the strategy raised is raised."""
        strategy.timeout_s = runtime.timeout_s
        limit = runtime.client_timeout_s
        # Nodes work side by side: who has not answered by then is not going to.
        if self.deployed and limit is not None and limit + ON_THE_WAY_S < runtime.timeout_s:
            strategy.timeout_s = limit + ON_THE_WAY_S
            strategy.deadline = f"runtime.client_timeout_s and {ON_THE_WAY_S:g} s for the way"
        if self.nodes is not None:
            strategy.nodes, callback = self.nodes, _Replies(callback)
        app = make_server_app(strategy, rounds, strategy.timeout_s, callback, poll_s=POLL_S)
        with quiet(WARNING):
            app(self.grid, self.context)
        if app.error is not None:
            raise app.error

    def device(self) -> dict[str, Any]:
        """Where clients compute, for the keys of kept answers. With a processor alone a simulated
        node's answers are those of the other backends. Which share of a GPU Flower gives to one,
        if any, nobody is told: with GPUs a run finds its own answers alone."""
        if self.deployed:
            return {"kind": "the node's own"}
        here = client_device(None)
        return here if here["kind"] == "cpu" else {"kind": "unknown", "run": self.context.run_id}


class _Replies(RunCallback):
    """A line for each reply of a deployment, which may be hours from the next."""

    def __init__(self, callback: RunCallback) -> None:
        self._callback = callback

    def on_reply(self, client: int, ok: bool) -> None:
        self._callback.on_reply(client, ok)
        self._callback.on_note(f"client {client} {'has answered' if ok else 'has failed'}")


@contextmanager
def quiet(least: int) -> Iterator[None]:
    """Without what Flower's logger says below a level: a dozen lines a round about arrays that
    nobody averages here, and failures, which are named in the outcome."""
    logger = getLogger("flwr")
    level, propagate = logger.level, logger.propagate
    # Own handler plus propagation to Hydra's would print each line twice.
    logger.propagate = False
    logger.setLevel(least)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
