"""What a client is sent: the task as plain JSON, the learngene as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learngene.gene import Learngene
from learngene.world import World
from strategies.rounds import RoundPlan


def plan_round(config: Mapping[str, Any], world: World, gene: Learngene) -> RoundPlan:
    """The message of a round. It names where the world lies and holds none of its images.

    In a simulation all clients read the same cache folder, each its own shard; on real nodes the
    folder is each node's own.
    """
    seed, shard_seed = config["seed"], config["shard_seed"]
    methods = list(config["methods"])
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
