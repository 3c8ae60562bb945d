"""The collective alone under the protocol of class-incremental learning."""

from __future__ import annotations

from reports.collective import depth_label
from reports.experiments.base import Experiment, Row, collective_row
from reports.figures.over_tasks import accuracy_over_tasks
from reports.variants import RunGroup

MEASURES = (  # of ``collective.continual``: name, key, unit
    ("average incremental accuracy", "average_incremental_accuracy", "%"),
    ("average accuracy after the last task", "average_accuracy", "%"),
    ("forgetting", "forgetting", "points"),
    ("backward transfer", "backward_transfer", "points"),
)


def rows(group: RunGroup) -> list[Row]:
    """The measures of class-incremental learning."""
    table = []
    for variant in group.variants:
        runs = [run for run in variant.runs if (run["collective"] or {}).get("continual")]
        measures = [run["collective"]["continual"] for run in runs]
        note = f"memory {variant.config('collective.memory')}"
        for name, key, unit in MEASURES:
            numbers = [measure[key] for measure in measures]
            quantity = f"{name}, {depth_label(runs)}"
            table += collective_row(variant, runs, quantity, unit, numbers, note)
    return table


EXPERIMENT = Experiment(
    "class_incremental", rows=rows, figure=accuracy_over_tasks, needs_collective=True
)
