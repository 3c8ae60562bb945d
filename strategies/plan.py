"""What a client is sent: the task as plain JSON, the learngene as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from learngene.gene import Learngene
from learngene.methods import Payload
from learngene.precision import at_precision
from learngene.world import World
from strategies.rounds import RoundPlan

OF_THE_COLLECTIVE = ("learngene",)  # methods whose result changes as the collective evolves


def plan_round(
    config: Mapping[str, Any],
    world: World,
    gene: Learngene,
    number: int = 1,
    payloads: Mapping[str, Payload] | None = None,
) -> RoundPlan:
    """The message of round ``number``. It names where the world lies and holds none of its images.

    In a simulation all clients read the same cache folder, each its own shard; on real nodes the
    folder is each node's own. Before the last round only the methods that build on the collective
    are asked for: for the others nothing has changed since.
    """
    gene, arrays = at_precision(gene, config["learngene"]["precision"])
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
        # Scratch's group goes along in every message, the others' only where they are asked for.
        "method": {k: v for k, v in config["method"].items() if k == "scratch" or k in methods},
        "card": gene.card.for_client(),
    }
    sent = {"learngene": arrays} if "learngene" in methods else {}
    made = {name: each for name, each in (payloads or {}).items() if name in methods}
    if made:
        task["cards"] = {name: each.card for name, each in made.items()}
    return RoundPlan(task, sent | {name: each.arrays for name, each in made.items()})
