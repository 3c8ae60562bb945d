"""Which open-world images the finished collective calls unknown, for clients' shards (table 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learngene.data.dataset import ImageDataset
from learngene.data.settings import ShardSettings
from learngene.open_world.flagged import (
    Flags,
    draw_labelled_shard,
    draw_of,
    encode_flags,
    random_flags,
)
from learngene.open_world.settings import LabelledSettings, OpenWorldSettings
from learngene.utils.hardware import torch_threads
from learngene.utils.settings import of_client
from protocol.callbacks import SILENT, RunCallback
from protocol.task import LabelledImages
from server.collective import fit_detector
from server.factory import FactoryResult


@dataclass(frozen=True)
class Labelled:
    """What is flagged, by the collective or at random, and the labeller names."""

    flags: Flags
    draws: int
    section: dict[str, Any]  # ``results.json``, "labelled"

    @property
    def task(self) -> LabelledImages:
        """As clients are told."""
        return LabelledImages(self.draws, encode_flags(self.flags))


def label_open_world(
    settings: OpenWorldSettings,
    labelled: LabelledSettings,
    shards: ShardSettings,
    num_clients: int,
    dataset: ImageDataset,
    result: FactoryResult,
    callback: RunCallback = SILENT,
) -> Labelled | None:
    """Let the collective look at the open-world classes' training images; None where shards are
    drawn from all images (``labelled.draws=0``).

    It looks at test images of the base classes, too: flags that fall on unknown images no more
    often than on known ones say nothing, although any of them fill a shard.
    The labeller of the simulation is an oracle: it names rightly whatever it is sent.

    Raises:
        InputError: of a class that a client should learn nothing was called unknown.
    """
    if not labelled.draws:
        return None
    assert result.trained is not None, "conf.validate wants a collective"
    trainer = result.trained.trainer
    split, names, draws = dataset.class_split, dataset.class_names, labelled.draws
    with torch_threads(result.trained.threads):
        detector = fit_detector(trainer, settings)

        looked_at, classes = count(1), len(split.open_world) + len(split.base)

        def flag(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
            callback.on_progress("labels, class", next(looked_at), classes)
            scores = detector.score(*trainer.predict(images, rows, settings.mirror))
            return scores.numpy() > detector.threshold

        flags: Flags = {
            c: flag(dataset.train_images, dataset.rows("train", c)) for c in split.open_world
        }
        known = {c: flag(dataset.test_images, dataset.rows("test", c)) for c in split.base}
    section: dict[str, Any] = {
        "draws": draws,
        "score": settings.score,
        "accept": settings.accept,
        "flags": labelled.flags,
        "flagged": {names[c]: float(np.mean(its)) for c, its in flags.items()},
        "flagged_known": {names[c]: float(np.mean(its)) for c, its in known.items()},
    }
    if labelled.flags == "random":
        share = float(np.mean([*section["flagged_known"].values()]))
        flags = random_flags(dataset, share, shards.seed)
    ways, shots = of_client(shards.ways, 0), of_client(shards.shots, 0)  # those of all clients
    drawn = [draw_labelled_shard(dataset, flags, shards, each) for each in range(num_clients)]
    first = {draw_of(each.client, draws): each for each in reversed(drawn)}
    section |= {
        "classes": [[names[c] for c in first[draw].classes] for draw in sorted(first)],
        "due": ways * shots * num_clients,
        "named": sum(len(each.train_rows) for each in drawn),
    }
    return Labelled(flags, draws, section)


def labelling_summary(section: Mapping[str, Any]) -> str:
    """A line for the terminal."""
    unknown, known = (np.mean([*section[of].values()]) for of in ("flagged", "flagged_known"))
    return (
        f"called unknown: {unknown:.1%} of open-world images, {known:.1%} of known ones; clients "
        f"have {section['named']:,} named images of {section['due']:,}, in {section['draws']} "
        "draws of classes"
    )
