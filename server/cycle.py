"""The open-world cycles of a finished collective, kept like its life.

``cache/collectives/KEY/cycles-KEY2`` holds them. KEY2 hashes what determines the cycles besides the
collective, so one life can go through different ones.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from learngene.collective.trainer import Evolution
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
from learngene.open_world.detector import Recogniser
from learngene.open_world.settings import OpenWorldSettings
from learngene.utils.checkpoint import key_of, read_checkpoint, write_checkpoint
from protocol.callbacks import SILENT, RunCallback
from server.collective import (
    Life,
    exemplars,
    go_on,
    life_card,
    life_parts,
    rows_as_text,
    rows_of_text,
)

FORMAT = 2  # raise it when the cycle changes


def run_cycles(
    life: Life,
    settings: OpenWorldSettings,
    cache: Path,
    *,
    resume: bool,
    labeller: Labeller | None = None,
    callback: RunCallback = SILENT,
) -> tuple[Evolution, dict[str, Any]]:
    """Let a copy of the collective meet its streams; the life itself is not touched.

    Args:
        labeller: names the images that it is sent; None is the oracle.

    Returns:
        The evolution after the last cycle, and ``open_world.cycle`` of ``results.json``.
    """
    evolution, world = life.evolution.branch(), life.evolution.world
    labeller = labeller or Oracle()
    parts = _parts(settings, labeller)
    folder = cache / "collectives" / life.key / f"cycles-{key_of(parts)}"
    of = {"life": life_parts(world, evolution.settings, evolution.device), "cycles": parts}
    records: list[dict[str, Any]] = []
    pool: dict[int, Rows] = {}
    if resume:
        records, pool = _take_up(evolution, folder, settings.cycles, of)
        for record in records:
            callback.on_cycle_end(record, True)
    while len(records) < settings.cycles:
        cycle, started = len(records), time.perf_counter()
        stream = draw_stream(world, settings, cycle, evolution.settings.seed)
        recogniser = _recogniser(evolution, settings)
        scores = _scores(evolution, recogniser, stream, settings)
        before = evolution.known
        met = encounter(
            stream, scores, recogniser.threshold, before, labeller, settings.labels_per_cycle
        )
        pool = gather_labels(pool, stream, met, before)
        added = choose_classes(pool, settings)
        split = {c: split_held_out(pool.pop(c)) for c in added}
        if added:
            evolution.admit(
                {c: train for c, (train, _) in split.items()},
                np.concatenate([held for _, held in split.values()]),
            )
            evolution.run_task(callback.on_step, settings.cycle_consolidate_epochs, balance=True)
        record = {
            "cycle": cycle + 1,
            "images": len(stream.rows),
            "threshold": recogniser.threshold,
            **met.counts,
            "added": added,
            "labelled_images": {
                str(c): len(train) + len(held) for c, (train, held) in split.items()
            },
            "waiting_classes": len(pool),
            "known_classes": len(evolution.known),
            **_accuracies(evolution, len(life.evolution.tasks)),
            "seconds": time.perf_counter() - started,
        }
        records.append(record)
        _keep(evolution, folder, records, pool, of)
        callback.on_cycle_end(record, False)
    return evolution, {
        "settings": settings.cycle_fields(),
        "before": _accuracies(life.evolution, len(life.evolution.tasks)),
        "cycles": records,
        **account(records, world.division.open_world),
    }


def _recogniser(evolution: Evolution, settings: OpenWorldSettings) -> Recogniser:
    """Fitted anew on what is known by now."""
    path, mirror = settings.path, settings.mirror
    fitted_on, labels = exemplars(evolution, path, mirror)
    images = evolution.world.train_images
    held_out = evolution.answers(images, evolution.calibration_rows, path, mirror)
    return Recogniser.fit(settings, fitted_on, labels, held_out)


def _scores(
    evolution: Evolution, recogniser: Recogniser, stream: Stream, settings: OpenWorldSettings
) -> np.ndarray:
    """How unknown the stream's images look, (N,)."""
    world, scores = evolution.world, np.empty(len(stream.rows))
    for split, chosen in ((world.test_images, stream.test), (world.train_images, ~stream.test)):
        if chosen.any():
            rows = stream.rows[chosen]
            answers = evolution.answers(split, rows, settings.path, settings.mirror)
            scores[chosen] = recogniser.scores(*answers).numpy()
    return scores


def _accuracies(evolution: Evolution, base_tasks: int) -> dict[str, Any]:
    """Of both paths on test images of base classes, of classes taken in, and of all (null: none).

    All known classes are possible answers.
    """
    world, stage = evolution.world, evolution.stages[-1]
    sizes = [sum(len(world.rows("test", c)) for c in s.new_classes) for s in evolution.stages]

    def of(by_task: list[float] | None, part: slice) -> float | None:
        if by_task is None or not by_task[part]:
            return None
        return float(np.average(by_task[part], weights=sizes[part]))

    old, new = slice(0, base_tasks), slice(base_tasks, None)
    return {
        "accuracy": stage.accuracy,
        "old_accuracy": of(stage.accuracy_by_task, old),
        "new_accuracy": of(stage.accuracy_by_task, new),
        "light_accuracy": stage.light_accuracy,
        "light_old_accuracy": of(stage.light_accuracy_by_task, old),
        "light_new_accuracy": of(stage.light_accuracy_by_task, new),
    }


def _parts(settings: OpenWorldSettings, labeller: Labeller) -> dict[str, Any]:
    """What determines the cycles of one life."""
    return {
        "format": FORMAT,
        "cycles": settings.cycle_fields(),
        "open_world": settings.detector_fields(),
        "labeller": labeller.name,
    }


def _keep(
    evolution: Evolution,
    folder: Path,
    records: list[dict[str, Any]],
    pool: dict[int, Rows],
    of: Mapping[str, Any],
) -> None:
    base = evolution.world.division.base
    card = {
        **life_card(evolution),
        "tasks": evolution.tasks,
        "taken_in": rows_as_text({c: r for c, r in evolution.train_rows.items() if c not in base}),
        "calibration": evolution.calibration_rows.tolist(),
        "records": records,
        "pool": rows_as_text(pool),
    }
    write_checkpoint(folder / f"cycle-{len(records):03d}", evolution.state(), card, of=of)


def _take_up(
    evolution: Evolution, folder: Path, cycles: int, of: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], dict[int, Rows]]:
    """Bring ``evolution`` to the last cycle whose files are whole; its records and its pool."""
    for cycle in range(cycles, 0, -1):
        found = read_checkpoint(folder / f"cycle-{cycle:03d}", of=of)
        if found is None:
            continue
        state, card = found
        twin = evolution.branch()
        try:
            twin.tasks = [list(task) for task in card["tasks"]]
            twin.train_rows |= rows_of_text(card["taken_in"])
            twin.calibration_rows = np.array(card["calibration"], dtype=np.int64)
            records, pool = list(card["records"]), rows_of_text(card["pool"])
        except (KeyError, TypeError, ValueError, AttributeError):  # whole, but not one of ours
            continue
        if go_on(twin, state, card):
            vars(evolution).update(vars(twin))
            return records, pool
    return [], {}
