"""What a collective is worth, measured on open-world classes alone, for any settings of it.

    python -m benchmarks.tune_collective [--tasks 100] [sim.py's overrides ...]

Raises the collective that ``sim.py`` would raise with these overrides (or finds it in the cache),
and prints as one line of JSON: accuracy of the 13 layers on the base classes, that of what a
client starts with (each of ``individual.depth``) over TASKS tasks of open-world classes (``ways``
and ``shots`` of the overrides, with the standard error over tasks), and the AUROC of every score,
base against open-world test images. The novel classes are not touched: nothing that is reported on
them was chosen on them.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.command import composed, end, new_parser, positive
from benchmarks.tune_methods import TUNING_SEED
from conf.parts import factory_settings
from conf.schema import Config
from learngene.adaptation.training import features, measure
from learngene.data.augment import still_views, to_batch
from learngene.data.cache import build
from learngene.data.dataset import ImageDataset
from learngene.data.partition import draw_shard
from learngene.data.settings import ShardSettings
from learngene.gene.gene import Learngene, reconstruct
from learngene.networks.individual import Individual, PrototypeHead
from learngene.seeding import torch_generator
from learngene.utils.hardware import keep_freed_memory
from learngene.utils.settings import by_client
from server.collective import recognise
from server.factory import train_or_load_gene


@torch.no_grad()
def prototypes(
    gene: Learngene, dataset: ImageDataset, config: Config, tasks: int
) -> tuple[float, float]:
    """Mean accuracy and standard error of class means as a classifier, over tasks.

    Tasks share images: each is embedded once, not anew for every task that holds it.
    """
    individual = reconstruct(
        gene, ways=config.ways, generator=torch_generator(0, "tune-collective")
    ).to(memory_format=torch.channels_last)
    asked = ShardSettings(config.ways, config.shots, TUNING_SEED, "open_world")
    shards = [draw_shard(dataset, asked, number) for number in range(tasks)]
    rows = np.unique(np.concatenate([part for s in shards for part in s.rows(dataset)]))
    seen = embedded(individual, dataset, rows, moved=config.individual.moved_views)
    # The mirror images stand behind the others.
    views = seen if config.individual.mirror_test else seen[: len(seen) // (1 + dataset.flip)]
    accuracies = []
    for shard in shards:
        train, test = (np.searchsorted(rows, part) for part in shard.rows(dataset))
        y, test_y = (ways_of(dataset, shard.classes, rows[part]) for part in (train, test))
        head = PrototypeHead(seen.shape[2], config.ways)
        head.start(seen[:, train].flatten(0, 1), y.repeat(len(seen)))
        right, _ = measure(
            head, views[:, test].flatten(0, 1), test_y.repeat(len(views)), len(views)
        )
        accuracies.append(right)
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / tasks**0.5)


def embedded(
    individual: Individual, dataset: ImageDataset, rows: np.ndarray, *, moved: bool
) -> torch.Tensor:
    """Features of all views of images (``still_views``), mirror images where flips are allowed:
    (views, N, D)."""
    parts = []
    for some in np.array_split(rows, max(1, len(rows) // 256)):
        x = to_batch(dataset.take("images", some))
        views = still_views(x, mirror=dataset.flip, moved=moved)
        parts.append(torch.stack([features(individual, view) for view in views]))
    return torch.cat(parts, dim=1)


def ways_of(dataset: ImageDataset, classes: tuple[int, ...], rows: np.ndarray) -> torch.Tensor:
    """Labels of images as a client of ``classes`` has them, (N,) in 0..ways-1."""
    return torch.tensor([classes.index(label) for label in dataset.take("labels", rows).tolist()])


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--tasks", type=positive, default=100)
    arguments, overrides = parser.parse_known_args()

    keep_freed_memory()
    config = composed(overrides)
    dataset = build(config.dataset, Path(config.cache))
    start = time.monotonic()
    result = train_or_load_gene(factory_settings(config), dataset)
    seconds = time.monotonic() - start
    assert result.trained is not None
    trainer = result.trained.trainer
    by_depth = {}
    for depth in by_client(config.individual.depth) or [result.gene.inherited]:
        mean, error = prototypes(result.gene.prefix(depth), dataset, config, arguments.tasks)
        by_depth[depth] = {"accuracy": round(mean, 4), "standard_error": round(error, 4)}
    auroc = {}
    for mirror in (False, True):
        settings = replace(config.open_world, mirror=mirror)
        auroc["mirror" if mirror else "plain"] = {
            name: round(measured["auroc"], 4)
            for name, measured in recognise(trainer, settings)["scores"].items()
            if measured
        }
    last = trainer.stages[-1]
    line = {
        "overrides": overrides,
        "seconds": round(seconds, 1),
        "image_passes": sum(stage.image_passes for stage in trainer.stages),
        "accuracy": last.accuracy,
        "prototypes": by_depth,
        "tasks": arguments.tasks,
        "auroc": auroc,
    }
    print(json.dumps(line), flush=True)
    return 0


if __name__ == "__main__":
    end(main)
