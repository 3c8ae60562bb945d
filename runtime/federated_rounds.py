"""The federated methods of a run: trained among the clients before these are asked for the rest.

What comes of a training travels to every client in the run's last round, as other methods'
payloads do; the bytes of the training's own rounds are the method's, too.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from statistics import fmean
from typing import Any

from flwr.clientapp import ClientApp

from clients.private_state import PrivateState, folder_of
from learngene.data.dataset import ImageDataset
from learngene.gene.gene import Learngene
from learngene.methods import BUILT_IN, Payload, find
from learngene.methods.common.federated import begin, finished
from protocol.callbacks import SILENT, RunCallback
from protocol.plan import plan_federated_round
from protocol.rounds import RoundOutcome, RoundPlan
from protocol.task import ClientTask
from runtime.ray_backend import simulate
from runtime.resources import Federation
from strategies.answer_cache import cache_key_fields
from strategies.fedavg import FederatedStrategy, Training
from strategies.training_cache import TrainingCache


@dataclass(frozen=True)
class Federated:
    """What the federated methods of a run came to."""

    payloads: dict[str, Payload] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)  # method -> reason
    rounds: dict[str, list[RoundOutcome]] = field(default_factory=dict)  # of each method
    section: dict[str, Any] | None = None  # ``results.json``, "federated"


def federated_methods(names: Sequence[str]) -> list[str]:
    """Those that are trained among the clients. A plugin is not: its weights would need a
    declaration of what may go up."""
    return [name for name in names if name in BUILT_IN and find(name).trained_by == "clients"]


def run_federated_training(
    task: ClientTask,
    names: Sequence[str],
    dataset: ImageDataset,
    body: Mapping[str, Any],
    federation: Federation,
    *,
    gene: Learngene | None = None,
    callback: RunCallback = SILENT,
    client_app: ClientApp | None = None,
    at_end: ExitStack | None = None,
) -> Federated:
    """Train the methods in ``names`` among the clients, or take up what is kept of them.

    Args:
        task: what all tasks of the run have in common.
        body: what the seven layers are, as scratch's (``backbone.body_card``).
        gene: for methods that begin as the learngene.
        client_app: what answers; default ``clients.client_app.app``.
        at_end: closed when no client will be asked again: what is of no use to another run is then
            removed. None: it stays.

    Raises:
        InputError, RuntimeError: as ``runtime.ray_backend.simulate``.
    """
    if not names:
        return Federated()
    clients = federation.num_clients
    trainings = [
        Training(name, task.method[name]["rounds"], _start(task, dataset, body, name, gene))
        for name in names
    ]
    kept = {each.name: _kept(task, dataset, each, federation) for each in trainings}
    if federation.resume:
        for each in trainings:
            kept[each.name].load(each, partial(_all_kept, each.name, kept[each.name], federation))
            if each.done:
                done = f"{each.done} of {each.rounds} federated rounds"
                callback.on_note(f"{each.name}: {done} were done by an earlier run")

    def after(training: Training) -> None:
        kept[training.name].save(training)
        callback.on_round_end(training.name, training.done, training.rounds)

    def told(training: Training) -> Payload:
        """The global model, with what clients need to find what they keep to themselves."""
        if find(training.name).private is None:
            return training.state
        key = kept[training.name].key
        said = {"training": key, "rounds": training.done, "whole": training.whole}
        if not training.whole:
            said |= {"parted": training.parted, "run": training.run, "absent": training.absent}
        return Payload(training.state.arrays, training.state.card | {"private": said})

    def plan(training: Training, number: int) -> RoundPlan:
        return plan_federated_round(task, training.name, number, told(training))

    if at_end is not None:
        for each in trainings:
            own = folder_of(federation.cache, kept[each.name].key, each.run)
            at_end.callback(shutil.rmtree, own, ignore_errors=True)
    strategy = FederatedStrategy(clients, trainings, plan, after_round=after)
    if strategy.rounds_left:
        simulate(
            strategy, strategy.rounds_left, federation.runtime, clients,
            resources=federation.resources, ray=federation.ray, outside=federation.outside,
            client_app=client_app,
        )  # fmt: skip
    failed = {each.name: each.failed for each in trainings if each.failed is not None}
    for name, reason in failed.items():
        callback.on_note(f"{name} failed: {reason}")
    trained = [training for training in trainings if training.failed is None]
    summaries = {each.name: _summary(each, task.method[each.name]) for each in trained}
    return Federated(
        {each.name: finished(told(each)) for each in trained},
        failed,
        {each.name: each.history for each in trainings},
        {"methods": summaries, "failed": failed},
    )


def _start(
    task: ClientTask,
    dataset: ImageDataset,
    body: Mapping[str, Any],
    name: str,
    gene: Learngene | None = None,
) -> Payload:
    method, classes = find(name), dataset.class_split.group(task.classes_from)
    return begin(
        task.seed,
        body,
        dataset.image_shape[0],
        classes,
        task.most_ways,
        private=method.private,
        gene=gene if method.from_learngene else None,
    )


def _all_kept(name: str, training: TrainingCache, federation: Federation, rounds: int) -> bool:
    """Whether every client still has what it kept to itself. Nodes of their own owners are not
    looked into: one that has lost it says so when it is asked."""
    if find(name).private is None or (federation.outside and federation.outside.deployed):
        return True
    return all(
        PrivateState(federation.cache, name, client, training.key, rounds, whole=True).is_whole
        for client in range(federation.num_clients)
    )


def _kept(
    task: ClientTask, dataset: ImageDataset, training: Training, federation: Federation
) -> TrainingCache:
    """Where the training is kept: the key is its first message and the clients."""
    plan = plan_federated_round(task, training.name, 1, training.state)
    fields = cache_key_fields(plan, 1, dataset.sha256, federation.device())
    fields["clients"] = federation.num_clients
    if federation.node_of is not None:
        fields["nodes"] = [federation.node_of(client) for client in range(federation.num_clients)]
    return TrainingCache(federation.cache, training.name, fields)


def _summary(training: Training, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A training in ``results.json``."""
    losses = [
        fmean(float(c.methods[training.name]["loss"]) for c in each.clients if c.error is None)  # type: ignore[arg-type]
        for each in training.history
    ]
    method = find(training.name)
    return {
        **({"private": method.private.words} if method.private else {}),
        **({"begins_as": "the learngene"} if method.from_learngene else {}),
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
