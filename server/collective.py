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

from learngene.evolution import Evolution, EvolutionSettings, Stage
from learngene.networks import Collective
from learngene.openworld import calibrate, measure, unknown_probability
from learngene.world import World
from server.checkpoint import read_checkpoint, write_checkpoint

FORMAT = 1  # raise it when the algorithm changes: a life under the old one must not be taken up


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
    accept: float,
    resume: bool,
    on_task: Callable[[Evolution, bool], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Life:
    """Take the collective through all of its tasks, or from the last one that is saved.

    Args:
        accept: share of held-out known images that the open-world threshold accepts.
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
    return Life(evolution, recognise(evolution, accept), reused, key)


def _take_up(evolution: Evolution, folder: Path) -> int:
    """Bring ``evolution`` to the last task whose files are whole; returns how many are done."""
    done = range(len(evolution.tasks), 0, -1)
    return next((task for task in done if _read_task(evolution, folder, task)), 0)


def _read_task(evolution: Evolution, folder: Path, task: int) -> bool:
    """Bring a fresh ``evolution`` to the end of its ``task``-th task, where that is saved whole."""
    found = read_checkpoint(folder / f"task-{task:03d}")
    if found is None:
        return False
    state, card = found
    evolution.take_up([Stage(**stage) for stage in card["stages"]], state)
    return True


def at_stage(life: Life, cache: Path, task: int) -> Collective | None:
    """The collective after its first ``task`` tasks; None when that checkpoint is gone."""
    last = life.evolution
    if task == len(last.stages):
        return last.collective
    earlier = Evolution(last.world, last.settings, last.device)
    found = _read_task(earlier, cache / "collectives" / life.key, task)
    return earlier.collective if found else None


def recognise(evolution: Evolution, accept: float) -> dict:
    """Eq. 2-3 on the finished collective: threshold from held-out base images, then test images."""
    world, known = evolution.world, evolution.known
    held_out = evolution.logits(world.train_images, evolution.calibration_rows)
    threshold = calibrate(unknown_probability(held_out).numpy(), accept)
    rows = np.concatenate([world.rows("test", c) for c in known])
    labels = torch.repeat_interleave(
        torch.arange(len(known)), torch.tensor([len(world.rows("test", c)) for c in known])
    )
    others = np.concatenate([world.rows("test", c) for c in world.division.open_world])
    found = measure(
        evolution.logits(world.test_images, rows),
        labels,
        evolution.logits(world.test_images, others),
        threshold,
    )
    return {"accept": accept, **found}
