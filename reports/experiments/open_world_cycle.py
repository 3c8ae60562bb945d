"""The whole cycle: streams met, labels spent, classes learned and kept, what clients gain."""

from __future__ import annotations

from reports.collective import cycle_of, depth_label, either
from reports.experiments.base import Experiment, Row, client_rows, collective_row
from reports.figures.over_tasks import cycles
from reports.variants import RunGroup

SUMMED = (  # counts of a cycle
    *("labels_spent", "known_sent", "unknown_missed", "known_called_unknown"),
    *("unknown_images", "known_images"),
)


def rows(group: RunGroup) -> list[Row]:
    """What the streams brought, what it cost, what was learned and kept, what clients gain."""
    table = []
    for variant in group.variants:
        runs = [run for run in variant.runs if cycle_of(run)]
        streams = [cycle_of(run) for run in runs]
        sums = {
            name: [sum(cycle[name] for cycle in stream["cycles"]) for stream in streams]
            for name in SUMMED
        }
        budget = either(stream["settings"]["labels_per_cycle"] for stream in streams)
        known, unknown = (
            f"of {either(sums[f'{kind}_images'])} {kind}" for kind in ("known", "unknown")
        )
        classes = f"of {either(stream['open_world_classes'] for stream in streams)}"
        learned = [stream["discovered"] for stream in streams]
        for quantity, unit, counts, note in (
            ("open-world classes learned", "classes", learned, classes),
            ("labels spent", "labels", sums["labels_spent"], f"at most {budget} a cycle"),
            ("labels spent on known images", "labels", sums["known_sent"], "needless"),
            ("unknown images missed", "images", sums["unknown_missed"], unknown),
            ("known images called unknown", "images", sums["known_called_unknown"], known),
        ):
            table += collective_row(variant, runs, quantity, unit, list(map(float, counts)), note)
        moments = (
            ("before", [stream["before"] for stream in streams]),
            ("after", [stream["cycles"][-1] for stream in streams]),
        )
        for classes in ("old", "new"):
            for moment, stages in moments:
                values = [stage[f"{classes}_accuracy"] for stage in stages]
                quantity = f"accuracy on {classes} classes {moment} the cycles, {depth_label(runs)}"
                table += collective_row(variant, runs, quantity, "%", values)
        table += client_rows(RunGroup(group.experiment, group.data, (variant,)))
    return table


EXPERIMENT = Experiment("open_world_cycle", rows=rows, figure=cycles, needs_collective=True)
