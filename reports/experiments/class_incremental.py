"""The collective alone under the protocol of class-incremental learning."""

from __future__ import annotations

from reports.collective import LIGHT, depth_label
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
    """The measures of class-incremental learning, by both paths where there are two."""
    table = []
    for variant in group.variants:
        runs = [run for run in variant.runs if (run["collective"] or {}).get("continual")]
        measures = [run["collective"]["continual"] for run in runs]
        note = f"memory {variant.config('collective.memory')}"
        for path, values in (
            (depth_label(runs), measures),
            (LIGHT, [measure.get("light") or {} for measure in measures]),
        ):
            for name, key, unit in MEASURES:
                numbers = [measure.get(key) for measure in values]
                table += collective_row(variant, runs, f"{name}, {path}", unit, numbers, note)
    return table


EXPERIMENT = Experiment(
    "class_incremental", rows=rows, figure=accuracy_over_tasks, needs_collective=True
)
