"""Which open-world images the finished collective calls unknown, for clients' shards (table 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from learngene.data.dataset import World
from learngene.data.partition import Shard
from learngene.open_world.detector import Recogniser
from learngene.open_world.flagged import Flags, as_text, draw_labelled_shard, draw_of
from learngene.utils.hardware import torch_threads
from protocol.task import LabelledImages
from server.collective import exemplars
from server.factory import Product, open_world_settings


@dataclass(frozen=True)
class Labelled:
    """What the collective flags and the labeller names."""

    flags: Flags
    draws: int
    section: dict[str, Any]  # ``results.json``, "labelled"

    @property
    def task(self) -> LabelledImages:
        """As clients are told."""
        return LabelledImages(self.draws, as_text(self.flags))


def label_open_world(config: Mapping[str, Any], world: World, product: Product) -> Labelled | None:
    """Let the collective look at the open-world classes' training images; None where shards are
    drawn from all images (``labelled.draws=0``).

    The labeller of the simulation is an oracle: it names rightly whatever it is sent.

    Raises:
        InputError: of a class that a client should learn nothing was called unknown.
    """
    draws = config["labelled"]["draws"]
    if not draws:
        return None
    assert product.life is not None, "conf.validate wants a collective"
    evolution, asked = product.life.evolution, open_world_settings(config)
    images, of_class = world.train_images, world.division.open_world
    with torch_threads(product.life.threads):
        known, labels = exemplars(evolution, asked.path, asked.mirror)
        held = evolution.answers(images, evolution.calibration_rows, asked.path, asked.mirror)
        recogniser = Recogniser.fit(asked, known, labels, held)
        flags = {}
        for c in of_class:
            answers = evolution.answers(images, world.rows("train", c), asked.path, asked.mirror)
            flags[c] = recogniser.scores(*answers).numpy() > recogniser.threshold
    shards = [
        draw_labelled_shard(
            world,
            flags,
            ways=config["ways"],
            shots=config["shots"],
            shard_seed=config["seed"] if config["shard_seed"] is None else config["shard_seed"],
            client=client,
            draws=draws,
        )
        for client in range(config["num_clients"])
    ]
    return Labelled(flags, draws, _section(config, world, flags, shards))


def _section(
    config: Mapping[str, Any], world: World, flags: Flags, shards: list[Shard]
) -> dict[str, Any]:
    draws, names = config["labelled"]["draws"], world.class_names
    due = config["ways"] * config["shots"]
    first = {draw_of(each.client, draws): each for each in reversed(shards)}
    return {
        "draws": draws,
        "score": config["open_world"]["score"],
        "accept": config["open_world"]["accept"],
        "flagged": {names[c]: float(np.mean(its)) for c, its in flags.items()},
        "classes": [[names[c] for c in first[draw].classes] for draw in sorted(first)],
        "due": due * len(shards),
        "named": sum(len(each.train_rows) for each in shards),
    }


def told(section: Mapping[str, Any]) -> str:
    """A line for the terminal."""
    share = np.mean(list(section["flagged"].values()))
    return (
        f"open-world classes: {share:.1%} of their images called unknown; clients have "
        f"{section['named']:,} named images of {section['due']:,}, in {section['draws']} draws "
        "of classes"
    )
