"""The life of the collective, kept: every finished task is saved, a finished life is not relived.

``cache/collectives/KEY`` holds one life. KEY hashes everything that determines it: the world's
content, the settings, the device, the number format, the threads and the library versions. Client
settings are not among them, so a run with other shards or shots finds its collective there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learngene.collective.records import Stage, TrainerSettings
from learngene.collective.trainer import Evolution
from learngene.data.dataset import World
from learngene.networks.collective import Collective
from learngene.open_world.detector import (
    DISTANCES,
    SCORES,
    Answers,
    Recogniser,
    doubled_softmax_floor,
    fit_score,
    measure,
    openness,
    paper_thresholds,
    separation,
)
from learngene.open_world.settings import OpenWorldSettings
from learngene.utils.checkpoint import key_of, read_checkpoint, write_checkpoint
from learngene.utils.hardware import torch_threads
from protocol.callbacks import SILENT, RunCallback

FORMAT = 2  # raise it when the algorithm changes: a life under the old one must not be taken up
EXEMPLARS = 50  # of a class that distances are fitted on, at most: more say the same, for more time


@dataclass
class Life:
    """A finished evolution with what was measured at its end."""

    evolution: Evolution
    open_world: dict
    reused: int  # tasks that were found finished
    key: str
    threads: int  # that it was lived with: sums depend on it


def life_parts(world: World, settings: TrainerSettings, device: torch.device) -> dict[str, Any]:
    """Everything that determines a collective."""
    return {
        "format": FORMAT,
        "world": world.sha256,
        "settings": settings.cache_fields(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def life_key(world: World, settings: TrainerSettings, device: torch.device) -> str:
    """Hash of everything that determines a collective, 16 hex digits."""
    return key_of(life_parts(world, settings, device))


def live(
    world: World,
    settings: TrainerSettings,
    device: torch.device,
    cache: Path,
    *,
    open_world: OpenWorldSettings,
    resume: bool,
    stops: Sequence[int] = (),
    on_stop: Callable[[Evolution], None] = lambda evolution: None,
    callback: RunCallback = SILENT,
) -> Life:
    """Take the collective through all of its tasks, or from the last one that is saved.

    Args:
        open_world: how the finished collective recognises unknown images.
        resume: False starts at the first task whatever is saved.
        stops: numbers of tasks done at which to call ``on_stop``, also when the tasks were done by
            an earlier run; the last task is always a stop.
        on_stop: called with the evolution as it is at a stop, in rising order.
    """
    evolution = Evolution(world, settings, device)
    parts = life_parts(world, settings, device)
    key = key_of(parts)
    folder = cache / "collectives" / key
    trained = 0
    for stop in sorted({*stops, len(evolution.tasks)}):
        if resume and _take_up(evolution, folder, stop, parts):
            callback.on_task_end(evolution, True)
        while len(evolution.stages) < stop:
            evolution.run_task(callback.on_step)
            trained += 1
            _keep(evolution, folder, parts)
            callback.on_task_end(evolution, False)
        on_stop(evolution)
    reused = len(evolution.tasks) - trained
    # What was said of the open world is kept, too: passes over thousands of images.
    asked = {"settings": open_world.detector_fields(), "pytorch-ood": version("pytorch-ood")}
    said, of = folder / f"open-world-{key_of(asked)}", {"life": parts, "open_world": asked}
    kept = read_checkpoint(said, of=of) if resume and not trained else None
    if kept is None:
        found = recognise(evolution, open_world)
        write_checkpoint(said, {}, found, of=of)
    else:
        found = kept[1]
    return Life(evolution, found, reused, key, torch.get_num_threads())


def life_card(evolution: Evolution) -> dict[str, Any]:
    """What a checkpoint's card holds of an evolution beside its tensors; see ``go_on``."""
    return {
        "stages": [stage.as_dict() for stage in evolution.stages],
        "exemplars": rows_as_text(evolution.memory),
    }


def go_on(evolution: Evolution, state: dict[str, Tensor], card: Mapping[str, Any]) -> bool:
    """Bring ``evolution`` to where ``state`` and the ``life_card`` in ``card`` were written.

    Returns:
        False, with ``evolution`` as it was, where they are not those of a life like this one: a
        checksum says that a file is whole, not who wrote it.
    """
    twin = evolution.branch()
    try:
        stages = [Stage(**stage) for stage in card["stages"]]
        rows = rows_of_text(card["exemplars"])
        tasks = twin.tasks[: len(stages)]
        known = np.cumsum([len(task) for task in tasks]).tolist()  # heads grow to as many
        if (
            [stage.new_classes for stage in stages] != tasks
            or [stage.known_classes for stage in stages] != known
            or any(not np.isin(its, twin.train_rows[c]).all() for c, its in rows.items())
        ):
            return False
        twin.take_up(stages, state, rows)
    # What odd cards and weights of other shapes raise on the way.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError):
        return False
    vars(evolution).update(vars(twin))
    return True


def rows_as_text(rows: Mapping[int, np.ndarray]) -> dict[str, list[int]]:
    """Rows by class, as JSON knows it."""
    return {str(c): its.tolist() for c, its in rows.items()}


def rows_of_text(kept: Mapping[str, list[int]]) -> dict[int, np.ndarray]:
    """What ``rows_as_text`` was given."""
    return {int(c): np.array(its, dtype=np.int64) for c, its in kept.items()}


def _keep(evolution: Evolution, folder: Path, parts: Mapping[str, Any]) -> None:
    stem = folder / f"task-{len(evolution.stages):03d}"
    write_checkpoint(stem, evolution.state(), life_card(evolution), of=parts)


def _take_up(evolution: Evolution, folder: Path, stop: int, parts: Mapping[str, Any]) -> bool:
    """Bring ``evolution`` forward to the last task up to ``stop`` whose files are whole.

    Returns:
        False where nothing beyond its present place is saved.

    Raises:
        InputError: a task was saved under other settings.
    """
    tasks = range(stop, len(evolution.stages), -1)
    return any(_read_task(evolution, folder, task, parts) for task in tasks)


def _read_task(evolution: Evolution, folder: Path, task: int, parts: Mapping[str, Any]) -> bool:
    """Bring ``evolution`` to the end of its ``task``-th task, where that is saved whole."""
    found = read_checkpoint(folder / f"task-{task:03d}", of=parts)
    return found is not None and go_on(evolution, *found)


def at_stage(life: Life, cache: Path, task: int) -> Collective | None:
    """The collective after its first ``task`` tasks; None when that checkpoint is gone.

    One that is there but not whole is mended: these tasks are lived again, from the last whole one
    before, so that a torn file changes no result.
    """
    last = life.evolution
    if task == len(last.stages):
        return last.collective
    earlier = Evolution(last.world, last.settings, last.device)
    folder = cache / "collectives" / life.key
    with torch_threads(life.threads):
        parts = life_parts(last.world, last.settings, last.device)
        if _read_task(earlier, folder, task, parts):
            return earlier.collective
        if not (folder / f"task-{task:03d}.safetensors").exists():
            return None
        _take_up(earlier, folder, task, parts)
        while len(earlier.stages) < task:
            earlier.run_task()
            _keep(earlier, folder, parts)
        return earlier.collective


def exemplars(evolution: Evolution, path: str, mirror: bool) -> tuple[Answers, Tensor]:
    """What the collective says of exemplars in its memory, and their positions in the head."""
    kept = [evolution.memory[c][:EXEMPLARS] for c in evolution.known]
    labels = _positions([len(rows) for rows in kept])
    if len(labels) == 0:
        return (torch.empty(0, len(kept)), torch.empty(0, 0)), labels
    images = evolution.world.train_images
    return evolution.answers(images, np.concatenate(kept), path, mirror), labels


def recognise(evolution: Evolution, settings: OpenWorldSettings) -> dict:
    """Eq. 2-3 on the finished collective, and every score beside the chosen one.

    The scores are fitted on the memory, which is what the factory still has of its classes; the
    threshold comes from held-out base images; all else is measured on test images of base and of
    open-world classes, never of novel ones.
    """
    world, known = evolution.world, evolution.known
    path, mirror = settings.path, settings.mirror
    fitted_on, classes = exemplars(evolution, path, mirror)
    held_out = evolution.answers(world.train_images, evolution.calibration_rows, path, mirror)
    of_class = [world.rows("test", c) for c in known]
    labels = _positions([len(rows) for rows in of_class])
    base = evolution.answers(world.test_images, np.concatenate(of_class), path, mirror)
    rows = np.concatenate([world.rows("test", c) for c in world.division.open_world])
    others = evolution.answers(world.test_images, rows, path, mirror)
    scores: dict[str, dict | None] = {}
    for name in SCORES:
        if name in DISTANCES and len(classes) == 0:  # collective.memory_per_class=0
            scores[name] = None
            continue
        score = fit_score(name, fitted_on[1], classes)
        scores[name] = separation(score(*base), score(*others), base[0].argmax(1), labels)
    chosen = scores[settings.score]
    assert chosen is not None, "conf.validate refuses a distance without a memory"
    measured = {name: found["auroc"] for name, found in scores.items() if found}
    recogniser = Recogniser.fit(settings, fitted_on, classes, held_out)
    return {
        "score": settings.score,
        "path": path,
        "mirror": mirror and world.flip,
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
