"""Load the run's dataset and check that no client's image is one of the factory's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from learngene.data.cache import build
from learngene.data.dataset import World, WorldSettings
from learngene.data.partition import Shard, check_leakage, draw_shard
from learngene.errors import InputError
from learngene.open_world.flagged import draw_labelled_shard, everything


def open_world_data(
    config: Mapping[str, Any], progress: Callable[[str], None]
) -> tuple[World, dict[str, Any]]:
    """The world and the result of the leakage guard over all clients' shards.

    Raises:
        InputError: the data cannot be used, holds too little for the settings, or leaks.
    """
    data = {k: v for k, v in config["data"].items() if k != "clients_from"}
    world = build(WorldSettings(**data, seed=config["seed"]), Path(config["cache"]), progress)
    shards = [_shard(config, world, client) for client in range(config["num_clients"])]
    cycles = config["open_world"]["cycles"] > 0  # the collective will learn these classes, too
    trained = (*world.division.base, *(world.division.open_world if cycles else ()))
    base = np.concatenate([world.rows("train", c) for c in trained])
    leakage = check_leakage(world, shards, base, with_open_world=cycles)
    if not leakage["passed"]:
        raise InputError("data.name", world.name, f"clients' images leak: {leakage}",
                         "Delete the cached world and build it again")  # fmt: skip
    return world, leakage


def _shard(config: Mapping[str, Any], world: World, client: int) -> Shard:
    """A client's shard; where its images will be named ones, all of which these may be."""
    seed = config["seed"] if config["shard_seed"] is None else config["shard_seed"]
    if draws := config["labelled"]["draws"]:
        most = max(len(world.rows("train", c)) for c in world.division.open_world)
        return draw_labelled_shard(
            world,
            everything(world),
            ways=config["ways"],
            shots=most,
            shard_seed=seed,
            client=client,
            draws=draws,
        )
    return draw_shard(
        world,
        ways=config["ways"],
        shots=config["shots"],
        shard_seed=seed,
        client=client,
        classes_from=config["data"]["clients_from"],
    )
