"""Growth on and off under one budget: what the collective became, and what clients gain."""

from __future__ import annotations

from reports.collective import depth_label, layer_names
from reports.experiments.base import Experiment, Row, client_rows, collective_row
from reports.figures.rho import rho_side_by_side
from reports.schema import Results
from reports.variants import RunGroup


def rows(group: RunGroup) -> list[Row]:
    """What the collective became, what it took, what the criterion selects, what clients gain."""
    table = []
    for variant in group.variants:
        runs = [run for run in variant.runs if run["collective"]]
        stages = [run["collective"]["stages"] for run in runs]
        quantity = f"accuracy on all known classes, {depth_label(runs)}"
        values = [last["accuracy"] for *_, last in stages]
        table += collective_row(variant, runs, quantity, "%", values)
        selected = [_selected(run) for run in runs]
        names = "; ".join(", ".join(layers) or "none" for layers in selected)
        parameters = [last["parameters"] / 1000 for *_, last in stages]
        passes = [sum(stage["image_passes"] for stage in tasks) / 1000 for tasks in stages]
        layers = [float(len(layers)) for layers in selected]
        for quantity, unit, counts, note in (
            ("parameters at the end", "thousand", parameters, ""),
            ("image passes", "thousand", passes, ""),
            ("layers that the criterion selects", "layers", layers, f"layers {names}"),
        ):
            table += collective_row(variant, runs, quantity, unit, counts, note)
        table += client_rows(RunGroup(group.experiment, group.data, (variant,)))
    return table


def _selected(run: Results) -> list[str]:
    """The layers that the criterion selects, by name."""
    names = layer_names(run)
    return [names[number - 1] for number in run["criterion"]["selected"]]


EXPERIMENT = Experiment(
    "growth_ablation",
    rows=rows,
    figure=rho_side_by_side,
    needs_collective=True,
    caption="Means over seeds; the table has the intervals.",
)
