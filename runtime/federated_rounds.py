"""The federated methods of a run: trained among the clients before these are asked for the rest.

What comes of a training travels to every client in the run's last round, as other methods'
payloads do; the bytes of the training's own rounds are the method's, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from flwr.clientapp import ClientApp

from learngene.data.dataset import World
from learngene.methods import NAMES, Payload, find
from learngene.methods.federated import begin, finished
from protocol.plan import base_task, declare, shapes_of
from protocol.rounds import RoundOutcome, RoundPlan
from protocol.task import LabelledImages
from runtime.ray_backend import simulate
from runtime.resources import RuntimeSettings, client_device
from strategies.answer_cache import answer_parts
from strategies.fedavg import FederatedStrategy, Training
from strategies.training_cache import KeptTraining

CLIENT = "client_"  # how the names of settings begin that only the last step reads


@dataclass(frozen=True)
class Federated:
    """What the federated methods of a run came to."""

    payloads: dict[str, Payload] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # method -> reason
    rounds: dict[str, list[RoundOutcome]] = field(default_factory=dict)  # of each method
    section: dict[str, Any] | None = None  # ``results.json``, "federated"


def federated_methods(names: list[str]) -> list[str]:
    """Those that are trained among the clients. A method of one's own is not: its weights would
    need a declaration of what may go up."""
    return [name for name in names if name in NAMES and find(name).update is not None]


def federate(
    config: Mapping[str, Any],
    world: World,
    width: float,
    names: list[str],
    *,
    on_note: Callable[[str], None] = lambda text: None,
    on_round: Callable[[str, int, int], None] = lambda name, done, rounds: None,
    labelled: LabelledImages | None = None,
    client_app: ClientApp | None = None,
) -> Federated:
    """Train the methods in ``names`` among the clients, or take up what is kept of them.

    Args:
        width: of the seven layers, as scratch's.
        labelled: what ``server.labelling`` tells clients, where their images are named ones.
        client_app: what answers; default ``clients.client_app.app``.

    Raises:
        InputError, RuntimeError: as ``runtime.ray_backend.simulate``.
    """
    if not names:
        return Federated()
    runtime, clients = RuntimeSettings(**config["runtime"]), config["num_clients"]
    trainings = [
        Training(name, config["method"][name]["rounds"], _start(config, world, width))
        for name in names
    ]
    kept = {each.name: _kept(config, world, each, runtime, labelled) for each in trainings}
    if config["resume"]:
        for each in trainings:
            kept[each.name].take_up(each)
            if each.done:
                on_note(f"{each.name}: {each.done} of {each.rounds} federated rounds were done "
                        "by an earlier run")  # fmt: skip

    def after(training: Training) -> None:
        kept[training.name].keep(training)
        on_round(training.name, training.done, training.rounds)

    strategy = FederatedStrategy(
        clients, trainings, lambda each, number: plan_round(config, world, each, number, labelled),
        on_round=after,
    )  # fmt: skip
    if strategy.rounds_left:
        simulate(strategy, strategy.rounds_left, runtime, clients, client_app=client_app)
    failed = {each.name: each.failed for each in trainings if each.failed is not None}
    for name, reason in failed.items():
        on_note(f"{name} failed: {reason}")
    return Federated(
        {each.name: finished(each.state) for each in trainings if each.failed is None},
        failed,
        {each.name: each.history for each in trainings},
        {
            "methods": {
                each.name: _told(each, config["method"][each.name])
                for each in trainings
                if each.failed is None
            },
            "failed": failed,
        },
    )


def plan_round(
    config: Mapping[str, Any],
    world: World,
    training: Training,
    number: int,
    labelled: LabelledImages | None = None,
) -> RoundPlan:
    """The message of a training's round ``number``: its settings and the global model."""
    name, card = training.name, training.state.card
    own = {k: v for k, v in config["method"][name].items() if not k.startswith(CLIENT)}
    task = replace(
        base_task(config, world, [name], labelled),
        method={name: own},
        cards={name: card},
        federated=number,
    )
    sent = {name: training.state.arrays}
    return RoundPlan(task, sent, declared=declare(task, {name: shapes_of(sent[name])}))


def _start(config: Mapping[str, Any], world: World, width: float) -> Payload:
    return begin(
        config["seed"],
        config["method"]["scratch"]["stem"],
        width,
        world.image_shape[0],
        world.division.group(config["data"]["clients_from"]),
        config["ways"],
    )


def _kept(
    config: Mapping[str, Any],
    world: World,
    training: Training,
    runtime: RuntimeSettings,
    labelled: LabelledImages | None,
) -> KeptTraining:
    """Where the training is kept: the key is its first message and the number of clients."""
    plan = plan_round(config, world, training, 1, labelled)
    parts = answer_parts(plan, 1, world.sha256, client_device(runtime)) | {
        "clients": config["num_clients"]
    }
    return KeptTraining(Path(config["cache"]), training.name, parts)


def _told(training: Training, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A training in ``results.json``."""
    losses = [
        fmean(float(c.methods[training.name]["loss"]) for c in each.clients if c.error is None)  # type: ignore[arg-type]
        for each in training.history
    ]
    return {
        "rounds": training.rounds,
        "local_epochs": settings["local_epochs"],
        "parameters": training.state.parameters,
        "loss_by_round": [[number, loss] for number, loss in enumerate(losses, start=1)],
        "left_out": [
            {"round": each.round, "client": c.client, "error": c.error}
            for each in training.history
            for c in each.clients
            if c.error is not None
        ],
        "bytes_down": sum(each.bytes_down for each in training.history),
        "bytes_up": sum(each.bytes_up for each in training.history),
    }
