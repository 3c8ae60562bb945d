"""What a client is sent, the task as plain JSON, the learngene as arrays, and what may cross."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clients.declared import Shapes, declared_reply
from learngene.gene import Learngene
from learngene.world import World
from strategies.guard import Declared
from strategies.rounds import RoundPlan

TASK_FIELDS = (
    *("world", "methods", "seed", "shard_seed", "ways", "shots", "classes_from", "threads"),
    *("width", "inherited", "individual", "retain", "method", "card"),
    *("faults", "limit_s"),  # only in runs that ask for them
)
OF_THE_COLLECTIVE = ("learngene",)  # methods whose result changes as the collective evolves


def plan_round(
    config: Mapping[str, Any],
    world: World,
    gene: Learngene,
    number: int = 1,
    faults: Mapping[str, Any] | None = None,
) -> RoundPlan:
    """The message of round ``number``. It names where the world lies and holds none of its images.

    In a simulation all clients read the same cache folder, each its own shard; on real nodes the
    folder is each node's own. Before the last round only the methods that build on the collective
    are asked for: for the others nothing has changed since.

    Args:
        faults: what ``strategies.faults.fault_orders`` gives.
    """
    seed, shard_seed = config["seed"], config["shard_seed"]
    methods = list(config["methods"])
    if number < config["rounds"]:
        methods = [name for name in methods if name in OF_THE_COLLECTIVE]
    task = {
        "world": str(world.path),
        "methods": methods,
        "seed": seed,
        "shard_seed": seed if shard_seed is None else shard_seed,
        "ways": config["ways"],
        "shots": config["shots"],
        "classes_from": config["data"]["clients_from"],
        "threads": max(1, int(config["runtime"]["num_cpus"])),
        "width": gene.card.width,
        "inherited": gene.inherited,
        "individual": config["individual"],
        "retain": config["retain"],
        "method": config["method"],
        "card": gene.card.for_client(),
    }
    # An undisturbed run's message does not change because there are such things.
    if faults:
        task["faults"] = dict(faults)
    if config["runtime"].get("client_timeout_s") is not None:
        task["limit_s"] = config["runtime"]["client_timeout_s"]
    payloads = {"learngene": gene.arrays} if "learngene" in methods else {}
    # From the card, not from the arrays: what is sent is held against what was promised.
    shapes = {name: tuple(shape) for name, shape in gene.card.shapes.items()}
    return RoundPlan(task, payloads, declared=declare(task, dict.fromkeys(payloads, shapes)))


def declare(task: Mapping[str, Any], payloads: Mapping[str, Shapes]) -> Declared:
    """All that may cross in a round with this task and these arrays (method -> name -> shape)."""
    return Declared(frozenset(TASK_FIELDS), payloads, declared_reply(task))
