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

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_module

from benchmarks.tune_methods import TUNING_SEED
from conf.parts import factory_settings
from conf.schema import Config, register_schema
from conf.validate import check
from learngene.adaptation.training import features, measure, shard_features
from learngene.data.cache import build
from learngene.data.dataset import ImageDataset
from learngene.data.partition import draw_shard, read_shard
from learngene.gene.gene import Learngene, reconstruct
from learngene.networks.individual import PrototypeHead
from learngene.seeding import torch_generator
from learngene.utils.hardware import keep_freed_memory
from learngene.utils.settings import by_client
from server.collective import recognise
from server.factory import train_or_load_gene


def composed(overrides: list[str]) -> Config:
    """The configuration that ``sim.py`` would have."""
    register_schema()
    with initialize_config_module("conf", version_base="1.3"):
        return check(compose("config", overrides))


@torch.no_grad()
def prototypes(
    gene: Learngene, dataset: ImageDataset, config: Config, tasks: int
) -> tuple[float, float]:
    """Mean accuracy and standard error of class means as a classifier, over tasks."""
    individual = reconstruct(
        gene, ways=config.ways, generator=torch_generator(0, "tune-collective")
    ).to(memory_format=torch.channels_last)

    accuracies = []
    for number in range(tasks):
        shard = draw_shard(
            dataset,
            ways=config.ways,
            shots=config.shots,
            shard_seed=TUNING_SEED,
            client=number,
            classes_from="open_world",
        )
        data = read_shard(dataset, shard, torch.device("cpu"))
        if config.individual.mirror_test:
            data = data.with_mirrored_tests()
        views, labels = shard_features(individual, data)
        head = PrototypeHead(views.shape[1], config.ways)
        head.start(views, labels)
        test = features(individual, data.test_x)
        right, _ = measure(head, test, data.test_y, data.test_views)
        accuracies.append(right)
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / tasks**0.5)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100)
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
    sys.exit(main())
