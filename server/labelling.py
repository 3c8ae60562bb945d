"""Which open-world images the finished collective calls unknown, for clients' shards (table 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from learngene.data.dataset import ImageDataset
from learngene.data.settings import ShardSettings
from learngene.open_world.flagged import Flags, draw_labelled_shard, draw_of, encode_flags
from learngene.open_world.settings import OpenWorldSettings
from learngene.utils.hardware import torch_threads
from protocol.task import LabelledImages
from server.collective import fit_detector
from server.factory import FactoryResult


@dataclass(frozen=True)
class Labelled:
    """What the collective flags and the labeller names."""

    flags: Flags
    draws: int
    section: dict[str, Any]  # ``results.json``, "labelled"

    @property
    def task(self) -> LabelledImages:
        """As clients are told."""
        return LabelledImages(self.draws, encode_flags(self.flags))


def label_open_world(
    settings: OpenWorldSettings,
    shards: ShardSettings,
    num_clients: int,
    dataset: ImageDataset,
    result: FactoryResult,
) -> Labelled | None:
    """Let the collective look at the open-world classes' training images; None where shards are
    drawn from all images (``labelled.draws=0``).

    The labeller of the simulation is an oracle: it names rightly whatever it is sent.

    Raises:
        InputError: of a class that a client should learn nothing was called unknown.
    """
    if not shards.draws:
        return None
    assert result.trained is not None, "conf.validate wants a collective"
    trainer = result.trained.trainer
    images, of_class = dataset.train_images, dataset.class_split.open_world
    with torch_threads(result.trained.threads):
        detector = fit_detector(trainer, settings)
        flags = {}
        for c in of_class:
            answers = trainer.predict(images, dataset.rows("train", c), settings.mirror)
            flags[c] = detector.score(*answers).numpy() > detector.threshold
    asked = {"ways": shards.ways, "shots": shards.shots, "shard_seed": shards.seed}
    drawn = [
        draw_labelled_shard(dataset, flags, **asked, client=client, draws=shards.draws)
        for client in range(num_clients)
    ]
    names = dataset.class_names
    first = {draw_of(each.client, shards.draws): each for each in reversed(drawn)}
    section = {
        "draws": shards.draws,
        "score": settings.score,
        "accept": settings.accept,
        "flagged": {names[c]: float(np.mean(its)) for c, its in flags.items()},
        "classes": [[names[c] for c in first[draw].classes] for draw in sorted(first)],
        "due": shards.ways * shards.shots * num_clients,
        "named": sum(len(each.train_rows) for each in drawn),
    }
    return Labelled(flags, shards.draws, section)


def labelling_summary(section: Mapping[str, Any]) -> str:
    """A line for the terminal."""
    share = np.mean(list(section["flagged"].values()))
    return (
        f"open-world classes: {share:.1%} of their images called unknown; clients have "
        f"{section['named']:,} named images of {section['due']:,}, in {section['draws']} draws "
        "of classes"
    )
