"""Load the run's dataset and check that no client's image is one of the factory's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from learngene.data.cache import build
from learngene.data.dataset import ImageDataset
from learngene.data.partition import Shard, check_leakage, draw_shard
from learngene.data.settings import SeededDataSettings, ShardSettings
from learngene.errors import InputError
from learngene.open_world.flagged import all_flagged, draw_labelled_shard
from learngene.utils.files import sweep_temporary
from protocol.callbacks import RunCallback


def load_dataset(
    data: SeededDataSettings,
    shards: ShardSettings,
    num_clients: int,
    cache: Path,
    *,
    open_world_learned: bool = False,
    callback: RunCallback,
) -> tuple[ImageDataset, dict[str, Any]]:
    """The dataset and the result of the leakage guard over all clients' shards.

    What killed writers have left anywhere in the cache is removed first.

    Args:
        open_world_learned: the collective's cycles will learn open-world classes, too.

    Raises:
        InputError: the data cannot be used, holds too little for the settings, or leaks.
    """
    sweep_temporary(cache)
    dataset = build(data, cache, callback.on_progress)
    for note in dataset.notes:
        callback.on_note(note)
    drawn = (_shard(shards, dataset, client) for client in range(num_clients))
    further = dataset.class_split.open_world if open_world_learned else ()
    trained = (*dataset.class_split.base, *further)
    base = np.concatenate([dataset.rows("train", c) for c in trained])
    leakage = check_leakage(dataset, drawn, base, with_open_world=open_world_learned)
    if not leakage["passed"]:
        fix = "Delete the cached dataset and build it again"
        raise InputError("data.name", dataset.name, f"clients' images leak: {leakage}", fix)
    return dataset, leakage


def _shard(shards: ShardSettings, dataset: ImageDataset, client: int) -> Shard:
    """A client's shard; where its images will be named ones, all of which these may be."""
    if not shards.draws:
        return draw_shard(dataset, shards, client)
    most = max(len(dataset.rows("train", c)) for c in dataset.class_split.open_world)
    return draw_labelled_shard(dataset, all_flagged(dataset), replace(shards, shots=most), client)
