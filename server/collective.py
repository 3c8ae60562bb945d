"""The life of the collective, kept: every finished task is saved, a finished life is not relived.

``cache/collectives/KEY`` holds one life. KEY hashes everything that determines it: the world's
content, the settings, the device, the number format, the threads and the library versions. Client
settings are not among them, so a run with other shards or shots finds its collective there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from learngene.evolution import Evolution, EvolutionSettings, Stage
from learngene.openworld import (
    DISTANCES,
    SCORES,
    Answers,
    OpenWorldSettings,
    Recogniser,
    doubled_softmax_floor,
    fit_score,
    measure,
    openness,
    paper_thresholds,
    separation,
)
from learngene.world import World
from server.checkpoint import read_checkpoint, write_checkpoint

FORMAT = 1  # raise it when the algorithm changes: a life under the old one must not be taken up
EXEMPLARS = (
    50  # of a class, at most, that distances are fitted on: more say the same, and cost time
)


@dataclass
class Life:
    """A finished evolution with what was measured at its end."""

    evolution: Evolution
    open_world: dict
    reused: int  # tasks that were found finished
    key: str


def life_key(world: World, settings: EvolutionSettings, device: torch.device) -> str:
    """Hash of everything that determines a collective, 16 hex digits."""
    parts = {
        "format": FORMAT,
        "world": world.sha256,
        "settings": asdict(settings),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def live(
    world: World,
    settings: EvolutionSettings,
    device: torch.device,
    cache: Path,
    *,
    open_world: OpenWorldSettings,
    resume: bool,
    on_task: Callable[[Evolution, bool], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Life:
    """Take the collective through all of its tasks, or from the last one that is saved.

    Args:
        open_world: how the finished collective recognises unknown images.
        resume: False starts at the first task whatever is saved.
        on_task: called after each task with the evolution and whether the task was found saved.
        on_step: called within a task with (steps done, steps, mean loss).
    """
    evolution = Evolution(world, settings, device)
    key = life_key(world, settings, device)
    folder = cache / "collectives" / key
    reused = 0
    if resume:
        reused = _take_up(evolution, folder)
        if reused and on_task:
            on_task(evolution, True)
    while not evolution.done:
        evolution.run_task(on_step)
        task = len(evolution.stages)
        card = {
            "stages": [stage.as_dict() for stage in evolution.stages],
            "settings": asdict(settings),
            "world": world.sha256,
        }
        write_checkpoint(folder / f"task-{task:03d}", evolution.collective.state_dict(), card)
        if on_task:
            on_task(evolution, False)
    return Life(evolution, recognise(evolution, open_world), reused, key)


def _take_up(evolution: Evolution, folder: Path) -> int:
    """Bring ``evolution`` to the last task whose files are whole; returns how many are done."""
    for task in range(len(evolution.tasks), 0, -1):
        found = read_checkpoint(folder / f"task-{task:03d}")
        if found is None:
            continue
        state, card = found
        evolution.take_up([Stage(**stage) for stage in card["stages"]], state)
        return task
    return 0


def exemplars(evolution: Evolution, path: str) -> tuple[Answers, Tensor]:
    """What the collective says of exemplars in its memory, and their positions in the head."""
    kept = [evolution.memory[c][:EXEMPLARS] for c in evolution.known]
    labels = _positions([len(rows) for rows in kept])
    if len(labels) == 0:
        return (torch.empty(0, len(kept)), torch.empty(0, 0)), labels
    return evolution.answers(evolution.world.train_images, np.concatenate(kept), path), labels


def recognise(evolution: Evolution, settings: OpenWorldSettings) -> dict:
    """Eq. 2-3 on the finished collective, and every score beside the chosen one.

    The scores are fitted on the memory, which is what the factory still has of its classes; the
    threshold comes from held-out base images; all else is measured on test images of base and of
    open-world classes, never of novel ones.
    """
    world, known, path = evolution.world, evolution.known, settings.path
    fitted_on, classes = exemplars(evolution, path)
    held_out = evolution.answers(world.train_images, evolution.calibration_rows, path)
    of_class = [world.rows("test", c) for c in known]
    labels = _positions([len(rows) for rows in of_class])
    base = evolution.answers(world.test_images, np.concatenate(of_class), path)
    rows = np.concatenate([world.rows("test", c) for c in world.division.open_world])
    others = evolution.answers(world.test_images, rows, path)
    scores: dict[str, dict | None] = {}
    for name in SCORES:
        if name in DISTANCES and len(classes) == 0:  # collective.memory_per_class=0
            scores[name] = None
            continue
        score = fit_score(name, fitted_on[1], classes)
        scores[name] = separation(score(*base), score(*others), base[0].argmax(1), labels)
    chosen = scores[settings.score]
    assert chosen is not None, "conf.check refuses a distance without a memory"
    measured = {name: found["auroc"] for name, found in scores.items() if found}
    recogniser = Recogniser.fit(settings, fitted_on, classes, held_out)
    return {
        "score": settings.score,
        "path": path,
        "threshold_from": settings.threshold,
        "accept": settings.accept,
        "auroc": chosen["auroc"],
        **measure(recogniser, base, labels, others),
        "scores": scores,
        "best_score": max(measured, key=measured.__getitem__),  # by AUROC, on these very images
        "exemplars": len(classes),
        "known_classes": len(known),
        "openness": openness(len(known), len(world.division.open_world)),
        "paper_thresholds": paper_thresholds(base[0], others[0]),
        "doubled_softmax_floor": doubled_softmax_floor(len(known)),
    }


def _positions(counts: list[int]) -> Tensor:
    """Labels of images that lie class by class: each position as often as ``counts`` says."""
    return torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
