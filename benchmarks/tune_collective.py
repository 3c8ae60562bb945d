"""What a collective is worth, measured on open-world classes alone, for any settings of it.

    python benchmarks/tune_collective.py [--tasks 100] [sim.py's overrides ...]

Raises the collective that ``sim.py`` would raise with these overrides (or finds it in the cache),
and prints as one line of JSON: accuracy of both paths on the base classes, accuracy of prototypes
on the learngene's features over TASKS tasks of open-world classes (no training, ``ways`` and
``shots`` of the overrides, with the standard error over tasks), and the AUROC of every score and
path, base against open-world test images. The novel classes are not touched: nothing that is
reported on them was chosen on them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from hydra import compose, initialize_config_module

from conf.schema import Config

TUNING_SEED = 77  # shards that no reported run draws


def composed(overrides: list[str]) -> Config:
    """The configuration that ``sim.py`` would have."""
    import sim  # noqa: F401  (registers the schema)
    from conf.validate import check

    with initialize_config_module("conf", version_base="1.3"):
        config = compose("config", overrides)
    return check(config)


@torch.no_grad()
def prototypes(gene: Any, world: Any, config: Config, tasks: int) -> tuple[float, float]:
    """Mean accuracy and standard error of class means as a classifier, over tasks."""
    from learngene.data.augment import to_batch
    from learngene.data.partition import draw_shard
    from learngene.gene.gene import reconstruct
    from learngene.networks.individual import PrototypeHead
    from learngene.seeding import torch_generator

    individual = reconstruct(
        gene, ways=config.ways, head="prototype", generator=torch_generator(0, "tune-collective")
    ).to(memory_format=torch.channels_last)
    individual.eval()

    def features(images: np.ndarray) -> torch.Tensor:
        parts = []
        for start in range(0, len(images), 256):
            parts.append(individual.features(to_batch(images[start : start + 256])))
        return torch.cat(parts)

    seen: dict[tuple[str, int], torch.Tensor] = {}
    for split in ("train", "test"):
        rows = np.concatenate([world.rows(split, c) for c in world.division.open_world])
        stored = world.train_images if split == "train" else world.test_images
        found = features(stored[np.sort(rows)])
        seen |= {(split, int(row)): f for row, f in zip(np.sort(rows), found, strict=True)}
    accuracies = []
    for number in range(tasks):
        shard = draw_shard(
            world, ways=config.ways, shots=config.shots, shard_seed=TUNING_SEED,
            client=number, classes_from="open_world",
        )  # fmt: skip
        way = {c: i for i, c in enumerate(shard.classes)}

        def of(split: str, rows: Any, labels: Any, way: dict[int, int] = way) -> tuple:
            found = torch.stack([seen[split, int(row)] for row in rows])
            return found, torch.tensor([way[int(labels[row])] for row in rows])

        head = PrototypeHead(next(iter(seen.values())).numel(), config.ways)
        head.start(*of("train", shard.train_rows, world.train_labels))
        x, y = of("test", shard.test_rows, world.test_labels)
        accuracies.append(float((head(x).argmax(1) == y).float().mean()))
    return float(np.mean(accuracies)), float(np.std(accuracies, ddof=1) / tasks**0.5)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=100)
    asked, overrides = parser.parse_known_args()

    from conf.parts import factory_settings
    from learngene.data.cache import build
    from learngene.utils.hardware import keep_freed_memory
    from server.collective import recognise
    from server.factory import train_or_load_gene

    keep_freed_memory()
    config = composed(overrides)
    world = build(config.dataset, Path(config.cache))
    begun = time.monotonic()
    result = train_or_load_gene(factory_settings(config), world)
    seconds = time.monotonic() - begun
    assert result.trained is not None
    trainer = result.trained.trainer
    mean, error = prototypes(result.gene, world, config, asked.tasks)
    settings = config.open_world
    auroc = {
        f"{path}{'+mirror' if mirror else ''}": {
            name: round(found["auroc"], 4)
            for name, found in recognise(trainer, replace(settings, path=path, mirror=mirror))[
                "scores"
            ].items()
            if found
        }
        for path in ("collective", "light", "both")
        for mirror in (False, True)
    }
    last = trainer.stages[-1]
    print(
        json.dumps(
            {
                "overrides": overrides,
                "seconds": round(seconds, 1),
                "image_passes": sum(stage.image_passes for stage in trainer.stages),
                "accuracy": last.accuracy,
                "light_accuracy": last.light_accuracy,
                "prototypes": round(mean, 4),
                "standard_error": round(error, 4),
                "tasks": asked.tasks,
                "auroc": auroc,
            }
        ),
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
