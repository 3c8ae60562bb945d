"""Draw the collective's accuracy over its tasks and over open-world cycles.

Lines are means over seeds; bands are 95 % intervals from three seeds on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from reports.collective import cycle_of, depth_label
from reports.figures import style
from reports.figures.collective import NO_COLLECTIVE
from reports.figures.measured import line
from reports.schema import Results
from reports.units import Measured, mean_over_runs
from reports.variants import RunGroup, Variant

Curve = Callable[[Results], Sequence[float | None]]  # of a run: fractions in 0..1, or none
NO_STREAM = "the collective met no stream: open_world.cycles is 0, or the results do not hold them"


def accuracy_over_tasks(group: RunGroup, path: Path) -> Path:
    """Accuracy on all classes known by then over the tasks, a colour a variant; of one, beside
    chance."""
    if any(not (run["collective"] or {}).get("stages") for run in group.runs):
        raise style.NoDataError(NO_COLLECTIVE)
    figure, axes = style.new_axes(4.2)
    for number, variant in enumerate(group.variants):
        stages = variant.runs[0]["collective"]["stages"]
        known = [stage["known_classes"] for stage in stages]
        _line(axes, known, variant, _of_stages, number)
    if len(group.variants) == 1:
        axes.plot(known, 100 / np.array(known), color=style.GREY, ls="--", lw=1.2, label="chance")
    axes.set(
        xlabel="classes the collective knows", ylabel="accuracy on all of them (%)", ylim=(0, 103)
    )
    style.whole_numbers(axes.xaxis)
    return style.save_with_legend(figure, axes, path)


def cycles(group: RunGroup, path: Path) -> Path:
    """Accuracy on old and on new classes over the cycles; 0 is before the first."""
    if all(run["open_world"] is None for run in group.runs):
        raise style.NoDataError(NO_COLLECTIVE)
    variants = [variant for variant in group.variants if all(cycle_of(run) for run in variant.runs)]
    if not variants:
        raise style.NoDataError(NO_STREAM)
    counts = [len(cycle_of(variant.runs[0])["cycles"]) for variant in variants]
    figure = style.new_figure(4.0)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, classes in zip(panels, ("old", "new"), strict=True):
        for number, variant in enumerate(variants):
            x = range(counts[number] + 1)
            _line(axes, x, variant, _of_cycles(f"{classes}_accuracy"), number)
        axes.set_title(f"{classes} classes", loc="left")
        axes.set(xlabel="cycles gone through", ylim=(0, 103))
        style.whole_numbers(axes.xaxis)
        axes.set_xlim(-0.2, max(counts) + 0.2)
    panels[0].set_ylabel("test accuracy (%)")
    return style.save_with_legend(figure, panels[0], path)


def _of_stages(run: Results) -> list[float]:
    return [stage["accuracy"] for stage in run["collective"]["stages"]]


def _of_cycles(key: str) -> Curve:
    return lambda run: [
        stage.get(key) for stage in (cycle_of(run)["before"], *cycle_of(run)["cycles"])
    ]


def _line(axes: Axes, x: Sequence[int], variant: Variant, curve: Curve, number: int) -> None:
    """Mean over the variant's runs; nothing where there is nothing to show."""
    curves = [list(curve(run)) for run in variant.runs]
    if any(len(values) != len(x) for values in curves):
        raise style.NoDataError("the seeds differ in their tasks or cycles")
    percent = 100 * np.array(curves, float)  # (runs, points)
    means = [
        Measured(None, None, "0 runs")
        if np.isnan(values).any()
        else mean_over_runs(list(zip(variant.runs, values.tolist(), strict=True)))
        for values in percent.T
    ]
    if all(measured.mean is None for measured in means):
        return
    label = ", ".join(filter(None, (variant.label, depth_label(variant.runs))))
    line(axes, x, means, label, number, ms=5)
