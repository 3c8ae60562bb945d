"""What a run tells its logger: the collective's tasks as they end, then clients and summary.

Stages and names, with the step in brackets:

- ``collective`` (task, from 1): accuracy, light_accuracy, known_classes, parameters, seconds, and
  of tasks trained in this run loss and consolidation_loss (nats; means over the steps of that
  training up to the last one that was told, which is every tenth);
- ``rho`` (task): ρ of each layer (Eq. 5), by the layer's name;
- ``clients/METHOD`` (epoch on the shard): test accuracy of each client and their mean;
- ``summary`` (0): mean and ci95 of each method's accuracy, and of the learngene's gain.

With ``learngene.layers=auto`` a second life of the collective is ``collective_2`` and ``rho_2``.
With several rounds the clients are those of the last one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from learngene.evolution import Evolution
from server.logger import RunLogger

Task = Callable[[Evolution, bool], None]  # the evolution, and whether its task was found finished
Step = Callable[[int, int, float], None]  # steps done, steps, mean loss


class CollectiveLog:
    """Logs each task once, as it ends or is found finished, beside what the terminal shows.

    Args:
        task, step: called first, with the same arguments.
    """

    def __init__(self, log: RunLogger, task: Task, step: Step) -> None:
        self._log, self._task, self._step = log, task, step
        self._evolution: Evolution | None = None
        self._life = 0
        self._logged = 0  # tasks of this life
        self._losses: list[float] = []  # the last one of each phase of the task under way
        self._done = 0

    def step(self, done: int, steps: int, loss: float) -> None:
        """A step of the task under way; steps that start anew are the next phase."""
        self._step(done, steps, loss)
        if not self._losses or done <= self._done:
            self._losses.append(loss)
        self._losses[-1], self._done = loss, done

    def task(self, evolution: Evolution, found: bool) -> None:
        """A task has ended, or all up to it were found."""
        self._task(evolution, found)
        if evolution is not self._evolution:
            self._evolution, self._logged, self._life = evolution, 0, self._life + 1
        losses, self._losses, self._done = self._losses, [], 0
        mark = f"_{self._life}" if self._life > 1 else ""
        for stage in evolution.stages[self._logged :]:
            values: dict[str, float | None] = {
                "accuracy": stage.accuracy,
                "light_accuracy": stage.light_accuracy,
                "known_classes": stage.known_classes,
                "parameters": stage.parameters,
                "seconds": stage.seconds,
            }
            if not found:
                values |= zip(("loss", "consolidation_loss"), losses, strict=False)
            step = stage.task + 1
            self._log.scalars(f"collective{mark}", step, values)
            names = stage.layers or [str(i + 1) for i in range(len(stage.rho))]
            self._log.scalars(f"rho{mark}", step, dict(zip(names, stage.rho, strict=True)))
        self._logged = len(evolution.stages)


def log_results(log: RunLogger, results: Mapping[str, Any]) -> None:
    """Logs what became of the clients, from the content of ``results.json``."""
    if not log.on:
        return
    answered = [client for client in results["clients"] if "error" not in client]
    curves: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
    for client in answered:
        for name, method in client["methods"].items():
            for epoch, accuracy in method["accuracy_by_epoch"]:
                curves[name, epoch][f"client_{client['id']}"] = accuracy
    for (name, epoch), values in sorted(curves.items()):
        log.scalars(f"clients/{name}", epoch, {**values, "mean": fmean(values.values())})
    log.scalars("summary", 0, {
        f"{name}_{field}": found[field]
        for name, found in results["summary"].items()
        if found is not None
        for field in ("mean", "ci95")
    })  # fmt: skip
