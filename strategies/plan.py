"""What a client is sent: the task as plain JSON, the learngene as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learngene.gene import Learngene
from learngene.world import World
from strategies.rounds import RoundPlan

OF_THE_COLLECTIVE = ("learngene",)  # methods whose result changes as the collective evolves


def plan_round(
    config: Mapping[str, Any], world: World, gene: Learngene, number: int = 1
) -> RoundPlan:
    """The message of round ``number``. It names where the world lies and holds none of its images.

    In a simulation all clients read the same cache folder, each its own shard; on real nodes the
    folder is each node's own. Before the last round only the methods that build on the collective
    are asked for: for the others nothing has changed since.
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
    return RoundPlan(task, {"learngene": gene.arrays} if "learngene" in methods else {})
