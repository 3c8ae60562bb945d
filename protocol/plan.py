"""Plan a round: the task, the arrays that go with it, and what may cross."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.data.dataset import World
from learngene.gene.gene import Learngene
from learngene.gene.quantize import at_precision, pack
from learngene.methods import Payload
from protocol.guard import Declared
from protocol.reply_schema import Shapes, declared_reply
from protocol.rounds import RoundPlan
from protocol.task import TASK_FIELDS, ClientTask, FaultOrders, LabelledImages

OF_THE_COLLECTIVE = ("learngene",)  # methods whose result changes as the collective evolves


def plan_round(
    config: Mapping[str, Any],
    world: World,
    gene: Learngene,
    number: int = 1,
    payloads: Mapping[str, Payload] | None = None,
    faults: FaultOrders | None = None,
    labelled: LabelledImages | None = None,
) -> RoundPlan:
    """The message of round ``number``. It names where the world lies and holds none of its images.

    In a simulation all clients read the same cache folder, each its own shard; on real nodes the
    folder is each node's own. Before the last round only the methods that build on the collective
    are asked for: for the others nothing has changed since.
    """
    gene, arrays = at_precision(gene, config["learngene"]["precision"])
    methods = list(config["methods"])
    if number < config["rounds"]:
        methods = [name for name in methods if name in OF_THE_COLLECTIVE]
    made = {name: each for name, each in (payloads or {}).items() if name in methods}
    task = replace(
        base_task(config, world, methods, labelled),
        width=gene.card.width,
        inherited=gene.inherited,
        retain=RetainSettings(**config["retain"]),
        # Scratch's group goes along in every message, the others' only where they are asked for.
        method={k: v for k, v in config["method"].items() if k == "scratch" or k in methods},
        card=gene.card.for_client(),
        faults=faults,
        own_methods={k: v for k, v in config.get("own_methods", {}).items() if k in methods},
        cards={name: each.card for name, each in made.items()},
    )
    sent = {name: pack(each.arrays, config["payload_precision"]) for name, each in made.items()}
    if "learngene" in methods:
        sent = {"learngene": arrays, **sent}
    declared = {name: shapes_of(each) for name, each in sent.items()}
    if "learngene" in methods and config["learngene"]["precision"] == "fp32":
        # From the card, not from the arrays: what is sent is held against what was promised.
        promised = {name: ("float32", tuple(shape)) for name, shape in gene.card.shapes.items()}
        declared["learngene"] = promised
    return RoundPlan(task, sent, declared=declare(task, declared))


def base_task(
    config: Mapping[str, Any],
    world: World,
    methods: Sequence[str],
    labelled: LabelledImages | None,
) -> ClientTask:
    """What every task says: what to do, with which images, from which seed."""
    seed, shard_seed = config["seed"], config["shard_seed"]
    return ClientTask(
        world=str(world.path),
        methods=tuple(methods),
        seed=seed,
        shard_seed=seed if shard_seed is None else shard_seed,
        ways=config["ways"],
        shots=config["shots"],
        classes_from=config["data"]["clients_from"],
        threads=max(1, int(config["runtime"]["num_cpus"])),
        individual=IndividualSettings(**config["individual"]),
        limit_s=config["runtime"]["client_timeout_s"],
        labelled=labelled,
    )


def shapes_of(arrays: Mapping[str, np.ndarray]) -> Shapes:
    """Types and shapes of arrays, by name."""
    return {name: (array.dtype.name, array.shape) for name, array in arrays.items()}


def declare(task: ClientTask, payloads: Mapping[str, Shapes]) -> Declared:
    """All that may cross in a round with this task and these arrays, by method."""
    return Declared(TASK_FIELDS, payloads, declared_reply(task))
