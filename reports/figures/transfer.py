"""Draw the transfer profile: accuracy on unseen classes by layer and task, plain and projected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure, SubFigure

from reports.figures import style
from reports.figures.collective import NO_COLLECTIVE
from reports.schema import Results
from reports.units import counted
from reports.variants import RunGroup, Variant

PANELS = {"plain": "class means", "projected": "behind the projection"}
NO_PROFILE = "the results hold no transfer profile: no second task, or no exemplars"


def transfer_profile(group: RunGroup, path: Path) -> Path:
    """A row a variant: layers upwards, tasks to the right; nothing is known of the first task."""
    if any(run["collective"] is None for run in group.runs):
        raise style.NoDataError(NO_COLLECTIVE)
    if any(not run.get("transfer") for run in group.runs):
        raise style.NoDataError(NO_PROFILE)
    figure = style.new_figure(4.4 * len(group.variants))
    rows = figure.subfigures(len(group.variants), 1, squeeze=False)[:, 0]
    for row, variant in zip(rows, group.variants, strict=True):
        draw_profile(row, variant)
    return style.save(figure, path)


def draw_profile(figure: Figure | SubFigure, variant: Variant) -> None:
    """Both maps of a variant whose runs have a profile, mean over them, on one scale."""
    maps = {kind: style.mean_map([_percent(run, kind) for run in variant.runs]) for kind in PANELS}
    low, high = (float(end([end(mean) for mean in maps.values()])) for end in (np.min, np.max))
    panels = figure.subplots(1, len(maps), sharey=True)
    for axes, (kind, mean) in zip(panels, maps.items(), strict=True):
        image = style.heat_map(axes, mean, high, low)
        axes.set_facecolor(style.ABSENT)
        axes.set(xlabel="task", title=PANELS[kind])
        style.task_ticks(axes.xaxis, most=7)
    panels[0].set_yticks(range(1, len(mean) + 1), variant.runs[0]["transfer"]["names"])
    panels[0].set_ylabel("layers 1 to ...")
    label = f"accuracy on unseen classes (%), {counted(len(variant.runs), 'run')}"
    style.colour_bar(figure, image, list(panels), label)


def _percent(run: Results, kind: str) -> style.Floats:
    """(layers, tasks); NaN where there is none."""
    values = np.full((len(run["transfer"]["names"]), run["collective"]["tasks"]), np.nan)
    for task in run["transfer"]["tasks"]:
        values[:, task["task"] - 1] = np.array(task[kind], dtype=float)
    return 100 * values
