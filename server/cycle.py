"""Run the open-world cycles of a finished collective, kept like its tasks.

``cache/collectives/KEY/cycles-KEY2`` holds them. KEY2 hashes what determines the cycles besides the
collective, so one collective can go through different ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from learngene.collective.trainer import CollectiveTrainer
from learngene.open_world.cycle import (
    Labeller,
    Oracle,
    Rows,
    Stream,
    account,
    choose_classes,
    draw_stream,
    encounter,
    gather_labels,
    split_held_out,
)
from learngene.open_world.detector import OpenSetDetector
from learngene.open_world.settings import OpenWorldSettings
from learngene.seeding import generator
from learngene.utils.checkpoint import key_of, read_checkpoint, write_checkpoint
from learngene.utils.hardware import library_version
from protocol.callbacks import SILENT, RunCallback
from server.collective import (
    TrainedCollective,
    cache_key_fields,
    checkpoint_card,
    decode_rows,
    encode_rows,
    fit_detector,
    restore,
)

FORMAT = 5  # raise it when the cycle changes


def run_cycles(
    trained: TrainedCollective,
    settings: OpenWorldSettings,
    cache: Path,
    *,
    resume: bool,
    labeller: Labeller | None = None,
    callback: RunCallback = SILENT,
) -> tuple[CollectiveTrainer, dict[str, Any]]:
    """Let a copy of the collective meet its streams; the collective itself is not touched. The
    labeller names the images that it is sent; None is the oracle.

    Returns:
        The trainer after the last cycle, and ``open_world.cycle`` of ``results.json``.
    """
    trainer, dataset = trained.trainer.clone(), trained.trainer.dataset
    labeller = labeller or Oracle()
    fields = {  # what determines the cycles of one collective
        "format": FORMAT,
        "cycles": settings.cycle_fields(),
        "open_world": settings.detector_fields(),
        "labeller": labeller.name,
        "pytorch-ood": library_version("pytorch-ood"),  # its scores choose what is named
    }
    folder = cache / "collectives" / trained.key / f"cycles-{key_of(fields)}"
    of = {"life": cache_key_fields(dataset, trainer.settings, trainer.device), "cycles": fields}
    records: list[dict[str, Any]] = []
    pool: dict[int, Rows] = {}
    if resume:
        records, pool = _load_checkpoint(trainer, folder, settings.cycles, of)
        for record in records:
            callback.on_cycle_end(record, True)
    while len(records) < settings.cycles:
        cycle, started = len(records), time.perf_counter()
        stream = draw_stream(dataset, settings, cycle, trainer.settings.seed)
        detector, before = fit_detector(trainer, settings), trainer.known
        scores, limit = _scores(trainer, detector, stream, settings), settings.labels_per_cycle
        met = encounter(stream, scores, detector.threshold, before, labeller, limit)
        pool = gather_labels(pool, stream, met, before)
        added = choose_classes(pool, settings)
        split = {
            c: split_held_out(pool.pop(c), generator(trainer.settings.seed, "held-out", cycle, c))
            for c in added
        }
        if added:
            trainer.add_task(
                {c: train for c, (train, _) in split.items()},
                np.concatenate([held for _, held in split.values()]),
            )
            trainer.run_task(callback.on_step, settings.cycle_consolidate_epochs, balance=True)
        record = {
            "cycle": cycle + 1,
            "images": len(stream.rows),
            "threshold": detector.threshold,
            **met.counts,
            "added": added,
            "labelled_images": {str(c): sum(map(len, rows)) for c, rows in split.items()},
            "waiting_classes": len(pool),
            "known_classes": len(trainer.known),
            **_accuracies(trainer, len(trained.trainer.tasks)),
            "seconds": time.perf_counter() - started,
        }
        records.append(record)
        _save_checkpoint(trainer, folder, records, pool, of)
        callback.on_cycle_end(record, False)
    return trainer, {
        "settings": settings.cycle_fields(),
        "before": _accuracies(trained.trainer, len(trained.trainer.tasks)),
        "cycles": records,
        **account(records, dataset.class_split.open_world),
    }


def _scores(
    trainer: CollectiveTrainer,
    detector: OpenSetDetector,
    stream: Stream,
    settings: OpenWorldSettings,
) -> np.ndarray:
    """How unknown the stream's images look, (N,)."""
    dataset, scores = trainer.dataset, np.empty(len(stream.rows))
    for split, chosen in ((dataset.test_images, stream.test), (dataset.train_images, ~stream.test)):
        if chosen.any():
            rows = stream.rows[chosen]
            answers = trainer.predict(split, rows, settings.mirror)
            scores[chosen] = detector.score(*answers).numpy()
    return scores


def _accuracies(trainer: CollectiveTrainer, base_tasks: int) -> dict[str, Any]:
    """On test images of base classes, of classes taken in, and of all (null: none).

    All known classes are possible answers.
    """
    dataset, stage = trainer.dataset, trainer.stages[-1]
    sizes = [sum(len(dataset.rows("test", c)) for c in s.new_classes) for s in trainer.stages]

    def of(part: slice) -> float | None:
        if not stage.accuracy_by_task[part]:
            return None
        return float(np.average(stage.accuracy_by_task[part], weights=sizes[part]))

    return {
        "accuracy": stage.accuracy,
        "old_accuracy": of(slice(0, base_tasks)),
        "new_accuracy": of(slice(base_tasks, None)),
    }


def _save_checkpoint(
    trainer: CollectiveTrainer,
    folder: Path,
    records: list[dict[str, Any]],
    pool: dict[int, Rows],
    of: Mapping[str, Any],
) -> None:
    base = trainer.dataset.class_split.base
    card = {
        **checkpoint_card(trainer),
        "tasks": trainer.tasks,
        "taken_in": encode_rows({c: r for c, r in trainer.train_rows.items() if c not in base}),
        "calibration": trainer.calibration_rows.tolist(),
        "records": records,
        "pool": encode_rows(pool),
    }
    write_checkpoint(folder / f"cycle-{len(records):03d}", trainer.state(), card, of=of)


def _load_checkpoint(
    trainer: CollectiveTrainer, folder: Path, cycles: int, of: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[int, Rows]]:
    """Bring ``trainer`` to the last cycle whose files are whole; its records and its pool."""
    for cycle in range(cycles, 0, -1):
        checkpoint = read_checkpoint(folder / f"cycle-{cycle:03d}", of=of)
        if checkpoint is None:
            continue
        state, card = checkpoint
        twin = trainer.clone()
        try:
            twin.tasks = [list(task) for task in card["tasks"]]
            twin.train_rows |= decode_rows(card["taken_in"])
            twin.calibration_rows = np.array(card["calibration"], dtype=np.int64)
            records, pool = list(card["records"]), decode_rows(card["pool"])
        except (KeyError, TypeError, ValueError, AttributeError):  # whole, but not one of ours
            continue
        if restore(twin, state, card):
            vars(trainer).update(vars(twin))
            return records, pool
    return [], {}
