"""What the transfer profile says in ``results.json``, for ``layers=auto`` and of the criterion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from learngene.collective.criterion import Trend, align
from learngene.collective.records import TaskRecord
from learngene.collective.trainer import CollectiveTrainer
from learngene.collective.transfer_profile import late_mean, rank_correlation
from learngene.errors import InputError
from learngene.gene.settings import LearngeneSettings


def transfer_section(stages: Sequence[TaskRecord]) -> dict[str, Any] | None:
    """``transfer`` of ``results.json``, by layer of the collective at its end; None: no profile.

    A layer that growth had not made yet is None. ``plain`` and ``projected`` are means over the
    last third of the tasks.
    """
    names, tasks = stages[-1].layers, list[dict[str, Any]]()
    for before, stage in pairwise(stages):
        if (profile := stage.transfer) is not None:
            by_layer = {}
            for kind in ("plain", "projected"):
                of = dict(zip(before.layers, getattr(profile, kind), strict=True))
                by_layer[kind] = [of.get(name) for name in names]
            shape = {"ways": profile.ways, "shots": profile.shots}
            tasks.append({"task": stage.task + 1, **shape, **by_layer})
    if not tasks:
        return None
    late = {kind: late_mean([task[kind] for task in tasks]) for kind in ("plain", "projected")}
    return {"names": names, "tasks": tasks, **late}


def held_against(
    transfer: Mapping[str, Any] | None, stages: Sequence[TaskRecord], trends: Sequence[Trend]
) -> dict[str, Any]:
    """Of ``criterion`` in ``results.json``: how weights change, and what predicts the profile.

    ``correlation`` is Spearman's over layers, with the accuracy of unseen classes behind the
    projection. Each predictor has the sign in which the paper reads it, so that above 0 speaks for
    it: rho small over the last third of the tasks, and steady over their last half (of three tasks
    no spread can be told); the rule's trend; weights that change little over the last third.
    """
    names = [stage.layers for stage in stages]
    changes = align([stage.weight_change for stage in stages], names)
    rho = align([stage.rho for stage in stages], names)
    half = rho[-max(2, len(rho) // 2) :]
    late = [[x for x in layer if x is not None] for layer in zip(*half, strict=True)]
    predictors: dict[str, Sequence[float | None]] = {
        "small rho": [-trend.late for trend in trends],
        "steady rho": [-float(np.std(values)) if len(values) > 1 else None for values in late],
        "trend of rho": [trend.trend for trend in trends],
        "small change of the weights": [None if x is None else -x for x in late_mean(changes)],
    }
    worth = [] if transfer is None else transfer["projected"]
    correlation = {
        name: rank_correlation(worth, values) if worth else None
        for name, values in predictors.items()
    }
    return {"weight_change": changes, "correlation": correlation}


def check_auto(
    trainer: CollectiveTrainer, settings: LearngeneSettings, sizes: Mapping[int, int]
) -> None:
    """What ``learngene.layers=auto`` needs, before anything is trained.

    Raises:
        InputError: there can be no profile, or no prefix fits into ``learngene.bytes``.
    """
    exemplars = trainer.strategy.exemplars and trainer.settings.collective.memory_per_class
    # Of each later task the classes with two images.
    unseen = (sum(len(trainer.train_rows[c]) > 1 for c in task) for task in trainer.tasks[1:])
    if max(unseen, default=0) < 2 or exemplars < 2:
        needed = "a second task with two classes of two images, and two exemplars of a class"
        problem = f"the profile that it reads needs {needed}"
        fix = "Write another collective.classes_per_task, or learngene.layers=front"
        raise InputError("learngene.layers", "auto", problem, fix)
    least = min(sizes.values())
    if settings.bytes is not None and settings.bytes < least:
        problem = f"the smallest prefix takes {least:,} bytes in {settings.precision}"
        fix = f"Write learngene.bytes={least} or more, or learngene.precision=int8"
        raise InputError("learngene.bytes", settings.bytes, problem, fix)


def choose_prefix(
    transfer: Mapping[str, Any] | None, settings: LearngeneSettings, sizes: Mapping[int, int]
) -> tuple[int, str]:
    """``learngene.layers=auto``: how many layers, and why in one line; ``sizes`` is what each
    prefix adds to a message, bytes, by its number of layers.

    Raises:
        InputError: there is no profile.
    """
    if transfer is None:
        problem = "no task had two classes with two images each and exemplars of two before it"
        fix = "Write learngene.layers=front"
        raise InputError("learngene.layers", "auto", problem, fix)
    kind = "plain" if settings.projection == "none" else "projected"
    worth = {
        depth: 100 * share
        for depth, share in enumerate(transfer[kind], start=1)
        if share is not None and (settings.bytes is None or sizes[depth] <= settings.bytes)
    }
    best = max(worth, key=worth.__getitem__)  # of equals the fewest layers
    chosen, why = best, f"the best within {settings.bytes} bytes"
    if settings.bytes is None:
        enough = worth[best] - settings.tolerance
        chosen = min(depth for depth, accuracy in worth.items() if accuracy >= enough)
        why = (
            f"the fewest within {settings.tolerance:g} of the best, "
            f"{worth[best]:.1f} % with layers 1 to {best}"
        )
    size = f"{worth[chosen]:.1f} % on unseen classes, {sizes[chosen]:,} bytes"
    return chosen, f"layers 1 to {chosen} ({size}): {why}"
