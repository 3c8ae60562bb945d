"""Train the collective once: every finished task is saved, a run takes up the last.

``cache/collectives/KEY`` holds one of them. KEY hashes everything that determines it: the data's
content, the settings, the device, the number format, the threads and the library versions. Client
settings are not among them, so a run with other shards or shots finds its collective there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learngene.collective.records import TaskRecord, TrainerSettings
from learngene.collective.sampling import class_positions
from learngene.collective.trainer import CollectiveTrainer
from learngene.data.dataset import ImageDataset
from learngene.networks.collective import Collective
from learngene.open_world.detector import (
    DISTANCES,
    SCORES,
    Answers,
    OpenSetDetector,
    doubled_softmax_floor,
    fit_score,
    measure,
    openness,
    paper_thresholds,
    separation,
)
from learngene.open_world.settings import OpenWorldSettings
from learngene.utils.checkpoint import key_of, read_checkpoint, write_checkpoint
from learngene.utils.hardware import contention, library_version, torch_threads
from protocol.callbacks import SILENT, RunCallback

FORMAT = 5  # raise it when the algorithm changes: a collective of the old one must not be taken up
LOOKS = "collective looks at images"  # tests, distillation, what is measured: no training
EXEMPLARS = 50  # of a class that distances are fitted on, at most: more say the same, for more time


@dataclass
class TrainedCollective:
    """A collective after its last task, with what was measured then."""

    trainer: CollectiveTrainer
    open_world: dict
    reused: int  # tasks that were found finished
    key: str
    threads: int  # that it was trained with: sums depend on it


def cache_key_fields(
    dataset: ImageDataset, settings: TrainerSettings, device: torch.device
) -> dict[str, Any]:
    """Everything that determines a collective."""
    return {
        "format": FORMAT,
        "world": dataset.sha256,
        "settings": settings.cache_fields(),
        **machine_fields(device, settings.collective.capture),
    }


def machine_fields(device: torch.device, capture: str) -> dict[str, Any]:
    """What the rounding of a training depends on, besides its settings.

    Args:
        capture: ``collective.capture``.
    """
    of_gpu: dict[str, Any] = {"device": "cpu"}
    if device.type == "cuda":
        of_gpu = {
            "device": torch.cuda.get_device_name(device),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "capture": capture,
        }
    return {
        **of_gpu,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def collective_key(dataset: ImageDataset, settings: TrainerSettings, device: torch.device) -> str:
    """Hash of everything that determines a collective, 16 hex digits."""
    return key_of(cache_key_fields(dataset, settings, device))


def train_collective(
    dataset: ImageDataset,
    settings: TrainerSettings,
    device: torch.device,
    cache: Path,
    *,
    open_world: OpenWorldSettings,
    resume: bool,
    snapshot_tasks: Sequence[int] = (),
    on_snapshot: Callable[[CollectiveTrainer], None] = lambda trainer: None,
    callback: RunCallback = SILENT,
) -> TrainedCollective:
    """Take the collective through all of its tasks, or from the last one that is saved.

    Args:
        open_world: how the finished collective recognises unknown images.
        resume: False starts at the first task whatever is saved.
        snapshot_tasks: numbers of tasks done at which to call ``on_snapshot``, also when the tasks
            were done by an earlier run; the last task always counts.
        on_snapshot: called with the trainer as it is then, in rising order.
    """
    trainer = CollectiveTrainer(dataset, settings, device)
    trainer.looked = partial(callback.on_progress, LOOKS)
    parts = cache_key_fields(dataset, settings, device)
    key = key_of(parts)
    folder = cache / "collectives" / key
    trained = 0
    for task_count in sorted({*snapshot_tasks, len(trainer.tasks)}):
        trained += _advance(trainer, task_count, folder, parts, resume=resume, callback=callback)
        on_snapshot(trainer)
    reused = len(trainer.tasks) - trained
    # What was said of the open world is kept, too: passes over thousands of images.
    ood = library_version("pytorch-ood")
    fields = {"settings": open_world.detector_fields(), "pytorch-ood": ood}
    stem, of = folder / f"open-world-{key_of(fields)}", {"life": parts, "open_world": fields}
    cached = read_checkpoint(stem, of=of) if resume and not trained else None
    measured = recognise(trainer, open_world) if cached is None else cached[1]
    if cached is None:
        write_checkpoint(stem, {}, measured, of=of)
    del trainer.looked  # what is looked at from here on is of other stages
    return TrainedCollective(trainer, measured, reused, key, torch.get_num_threads())


def checkpoint_card(trainer: CollectiveTrainer) -> dict[str, Any]:
    """What a checkpoint's card holds of a trainer beside its tensors; see ``restore``."""
    return {
        "stages": [asdict(stage) for stage in trainer.stages],
        "exemplars": encode_rows(trainer.memory),
    }


def restore(trainer: CollectiveTrainer, state: dict[str, Tensor], card: Mapping[str, Any]) -> bool:
    """Bring ``trainer`` to where ``state`` and the ``checkpoint_card`` in ``card`` were written.

    Returns:
        False, with ``trainer`` as it was, where they are not those of a trainer like this one: a
        checksum says that a file is whole, not who wrote it.
    """
    twin = trainer.clone()
    try:
        stages = [TaskRecord(**stage) for stage in card["stages"]]
        rows = decode_rows(card["exemplars"])
        tasks = twin.tasks[: len(stages)]
        known = np.cumsum([len(task) for task in tasks]).tolist()  # heads grow to as many
        if (
            [stage.new_classes for stage in stages] != tasks
            or [stage.known_classes for stage in stages] != known
            or any(not np.isin(its, twin.train_rows[c]).all() for c, its in rows.items())
        ):
            return False
        twin.load_state(stages, state, rows)
    # What odd cards and weights of other shapes raise on the way.
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError):
        return False
    vars(trainer).update(vars(twin))
    return True


def encode_rows(rows: Mapping[int, np.ndarray]) -> dict[str, list[int]]:
    """Rows by class, as JSON knows it."""
    return {str(c): its.tolist() for c, its in rows.items()}


def decode_rows(kept: Mapping[str, list[int]]) -> dict[int, np.ndarray]:
    """What ``encode_rows`` was given."""
    return {int(c): np.array(its, dtype=np.int64) for c, its in kept.items()}


def _stem(folder: Path, task: int) -> Path:
    return folder / f"task-{task:03d}"


def _advance(
    trainer: CollectiveTrainer,
    tasks: int,
    folder: Path,
    parts: Mapping[str, Any],
    *,
    resume: bool = True,
    callback: RunCallback = SILENT,
) -> int:
    """Bring ``trainer`` to the end of its first ``tasks`` tasks, from the last whole checkpoint on.

    Returns:
        How many of them were trained; each is saved.

    Raises:
        InputError: a task was saved under other settings.
    """
    for task in range(tasks, len(trainer.stages), -1) if resume else ():
        checkpoint = read_checkpoint(_stem(folder, task), of=parts)
        if checkpoint is not None and restore(trainer, *checkpoint):
            callback.on_task_end(trainer, True)
            break
    trained = tasks - len(trainer.stages)
    warned = trainer.device.type != "cpu"
    while len(trainer.stages) < tasks:
        trainer.run_task(callback.on_step)
        # Beside the last task the run's own Ray starts, and there is nothing left to advise on.
        warned |= trainer.done
        if not warned and (said := contention(torch.get_num_threads())) is not None:
            callback.on_note(said)
            warned = True
        stem = _stem(folder, len(trainer.stages))
        write_checkpoint(stem, trainer.state(), checkpoint_card(trainer), of=parts)
        callback.on_task_end(trainer, False)
    return trained


def collective_after(trained: TrainedCollective, cache: Path, task: int) -> Collective | None:
    """The collective after its first ``task`` tasks; None when that checkpoint is gone.

    One that is there but not whole is mended: these tasks are trained again, from the last whole
    one before, so that a torn file changes no result.
    """
    last = trained.trainer
    if task == len(last.stages):
        return last.collective
    folder = cache / "collectives" / trained.key
    if not _stem(folder, task).with_suffix(".safetensors").exists():
        return None
    earlier = CollectiveTrainer(last.dataset, last.settings, last.device)
    with torch_threads(trained.threads):
        parts = cache_key_fields(last.dataset, last.settings, last.device)
        _advance(earlier, task, folder, parts)
    return earlier.collective


def fitting_answers(
    trainer: CollectiveTrainer, settings: OpenWorldSettings
) -> tuple[Answers, Tensor, Answers]:
    """What a detector is fitted on, as ``OpenSetDetector.fit`` takes it.

    Returns:
        What the collective says of exemplars in its memory, their positions in the head, and what
        it says of the held-out images.
    """

    def answers(rows: np.ndarray) -> Answers:
        images = trainer.dataset.train_images
        return trainer.predict(images, rows, settings.mirror)

    kept = [trainer.memory[c][:EXEMPLARS] for c in trainer.known]
    labels = class_positions(kept)
    exemplars = torch.empty(0, len(kept)), torch.empty(0, 0)
    if len(labels):
        exemplars = answers(np.concatenate(kept))
    return exemplars, labels, answers(trainer.calibration_rows)


def fit_detector(trainer: CollectiveTrainer, settings: OpenWorldSettings) -> OpenSetDetector:
    """For what is known by now: the score on exemplars, the threshold on held-out images."""
    return OpenSetDetector.fit(settings, *fitting_answers(trainer, settings))


def recognise(trainer: CollectiveTrainer, settings: OpenWorldSettings) -> dict:
    """Eq. 2-3 on the finished collective, and every score beside the chosen one.

    The scores are fitted on the memory, which is what the factory still has of its classes; the
    threshold comes from held-out base images; all else is measured on test images of base and of
    open-world classes, never of novel ones.
    """
    dataset, known = trainer.dataset, trainer.known
    mirror = settings.mirror
    fitted_on, classes, held_out = fitting_answers(trainer, settings)
    of_class = [dataset.rows("test", c) for c in known]
    labels = class_positions(of_class)
    base = trainer.predict(dataset.test_images, np.concatenate(of_class), mirror)
    rows = np.concatenate([dataset.rows("test", c) for c in dataset.class_split.open_world])
    others = trainer.predict(dataset.test_images, rows, mirror)
    scores: dict[str, dict | None] = dict.fromkeys(SCORES)
    for name in SCORES:
        if len(classes) or name not in DISTANCES:  # collective.memory_per_class above 0
            score = fit_score(name, fitted_on[1], classes)
            scores[name] = separation(score(*base), score(*others), base[0].argmax(1), labels)
    chosen = scores[settings.score]
    assert chosen is not None, "conf.validate refuses a distance without a memory"
    measured = {name: found["auroc"] for name, found in scores.items() if found}
    detector = OpenSetDetector.fit(settings, fitted_on, classes, held_out)
    return {
        "score": settings.score,
        "mirror": mirror and dataset.flip,
        "threshold_from": settings.threshold,
        "accept": settings.accept,
        "auroc": chosen["auroc"],
        **measure(detector, base, labels, others),
        "scores": scores,
        "best_score": max(measured, key=measured.__getitem__),  # by AUROC, on these very images
        "exemplars": len(classes),
        "known_classes": len(known),
        "openness": openness(len(known), len(dataset.class_split.open_world)),
        "paper_thresholds": paper_thresholds(base[0], others[0]),
        "doubled_softmax_floor": doubled_softmax_floor(len(known)),
    }
