"""Figure 5: where the collective looks in images of classes that it does not know."""

from __future__ import annotations

from pathlib import Path

from reports.experiments.base import Experiment, Row, row
from reports.figures.gradcam import gradcam
from reports.units import Measured, counted
from reports.variants import RunGroup


def rows(group: RunGroup) -> list[Row]:
    """How much the figure shows; the paper has no number for it."""
    table = []
    for variant in group.variants:
        maps = [run["gradcam"] for run in variant.runs if run.get("gradcam")]
        shown = sum(len(sheet["images"]) for sheet in maps)
        measured = Measured(float(shown), None, counted(len(maps), "run"))
        note = "test images of classes that the collective does not know, drawn from the seed"
        table.append(row(variant, "images looked at", "images", measured, note=note))
    return table


def figure(group: RunGroup, path: Path) -> Path:
    """The maps of the first seed: those of several collectives cannot be averaged."""
    return gradcam(group.runs[0], path)


EXPERIMENT = Experiment(
    "fig5_gradcam",
    rows=rows,
    figure=figure,
    needs_collective=True,
    caption="Maps of single images.",
)
