"""What a client is sent, the task as plain JSON, the learngene as arrays, and what may cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from learngene.data.dataset import World
from learngene.gene.gene import Learngene
from learngene.gene.quantize import at_precision, pack
from learngene.methods import Payload, find
from protocol.guard import Declared
from protocol.reply_schema import Shapes, declared_reply
from protocol.rounds import RoundPlan

TASK_FIELDS = (
    *("world", "methods", "seed", "shard_seed", "ways", "shots", "classes_from", "threads"),
    *("width", "inherited", "individual", "retain", "method", "card"),
    "cards",  # only with methods that are sent something of their own
    "labelled",  # only where clients hold images that the collective called unknown
    "federated",  # only in rounds of federated training: the number of the round
    *("faults", "limit_s", "own_methods"),  # only in runs that ask for them
)


def plan_round(
    config: Mapping[str, Any],
    world: World,
    gene: Learngene,
    number: int = 1,
    payloads: Mapping[str, Payload] | None = None,
    faults: Mapping[str, Any] | None = None,
    labelled: Mapping[str, Any] | None = None,
) -> RoundPlan:
    """The message of round ``number``. It names where the world lies and holds none of its images.

    In a simulation all clients read the same cache folder, each its own shard; on real nodes the
    folder is each node's own. Before the last round only the methods that build on the collective
    are asked for: for the others nothing has changed since.

    Args:
        faults: what ``runtime.client_rounds.fault_orders`` gives.
        labelled: what ``server.labelling`` tells clients, where their images are named ones.
    """
    gene, arrays = at_precision(gene, config["learngene"]["precision"])
    methods, plugins = list(config["methods"]), config.get("own_methods", {})
    heirs = [name for name in methods if find(name, plugins.get(name)).inherits]
    if number < config["rounds"]:
        methods = [name for name in methods if name in heirs]
    task = {
        **common_task(config, world, methods),
        "width": gene.card.width,
        "inherited": gene.inherited,
        "individual": config["individual"],
        "retain": config["retain"],
        # Scratch's group goes along in every message, the others' only where they are asked for.
        "method": {k: v for k, v in config["method"].items() if k == "scratch" or k in methods},
        "card": gene.card.for_client(),
    }
    # An undisturbed run's message does not change because there are such things.
    if faults:
        task["faults"] = dict(faults)
    task |= occasional_task(config, labelled)
    if plugins := {name: plugin for name, plugin in plugins.items() if name in methods}:
        task["own_methods"] = plugins
    made = {name: each for name, each in (payloads or {}).items() if name in methods}
    if made:
        task["cards"] = {name: each.card for name, each in made.items()}
    sent = {name: pack(each.arrays, config["payload_precision"]) for name, each in made.items()}
    sent = dict.fromkeys(heirs, arrays) | sent
    declared = {name: shapes_of(each) for name, each in sent.items()}
    if config["learngene"]["precision"] == "fp32":
        # From the card, not from the arrays: what is sent is held against what was promised.
        promised = {name: ("float32", tuple(shape)) for name, shape in gene.card.shapes.items()}
        declared |= dict.fromkeys(heirs, promised)
    return RoundPlan(task, sent, declared=declare(task, declared))


def common_task(config: Mapping[str, Any], world: World, methods: Sequence[str]) -> dict[str, Any]:
    """What every task says: what to do, with which images, from which seed."""
    seed, shard_seed = config["seed"], config["shard_seed"]
    return {
        "world": str(world.path),
        "methods": list(methods),
        "seed": seed,
        "shard_seed": seed if shard_seed is None else shard_seed,
        "ways": config["ways"],
        "shots": config["shots"],
        "classes_from": config["data"]["clients_from"],
        "threads": max(1, int(config["runtime"]["num_cpus"])),
    }


def occasional_task(
    config: Mapping[str, Any], labelled: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What tasks of some runs say besides; a message does not change because there is such."""
    task: dict[str, Any] = {}
    if config["runtime"].get("client_timeout_s") is not None:
        task["limit_s"] = config["runtime"]["client_timeout_s"]
    if labelled is not None:
        task["labelled"] = dict(labelled)
    return task


def shapes_of(arrays: Mapping[str, np.ndarray]) -> Shapes:
    """Types and shapes of arrays, by name."""
    return {name: (array.dtype.name, array.shape) for name, array in arrays.items()}


def declare(task: Mapping[str, Any], payloads: Mapping[str, Shapes]) -> Declared:
    """All that may cross in a round with this task and these arrays, by method."""
    return Declared(frozenset(TASK_FIELDS), payloads, declared_reply(task))
