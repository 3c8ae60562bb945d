"""Draw the collective's accuracy over its tasks and over open-world cycles.

Solid lines with filled marks are the 13 layers (or as many as there are), dashed lines with hollow
marks the light path. Lines are means over seeds; bands are 95 % intervals from three seeds on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reports.collective import LIGHT, cycle_of, depth_label
from reports.figures.collective import NO_COLLECTIVE
from reports.figures.style import (
    BLUE,
    GREEN,
    MARKERS,
    OTHERS,
    VERMILION,
    NoDataError,
    legend_above,
    new_figure,
    save,
    styled,
)
from reports.schema import Results
from reports.units import mean_over_runs
from reports.variants import RunGroup, Variant

COLOURS = (BLUE, VERMILION, GREEN, *OTHERS[1:])
Curve = Callable[[Results], Sequence[float | None]]  # of a run: fractions in 0..1, or none
NO_STREAM = "the collective met no stream: open_world.cycles is 0, or the results do not hold them"


def accuracy_over_tasks(group: RunGroup, path: Path) -> Path:
    """Accuracy on all classes known by then over the tasks, a colour a variant."""
    _need_collective(group)
    figure = new_figure(4.2)
    axes = figure.add_subplot()
    for number, variant in enumerate(group.variants):
        stages = variant.runs[0]["collective"]["stages"]
        known = [stage["known_classes"] for stage in stages]
        for label, key, light in _paths(variant, "accuracy"):
            _line(axes, known, variant, _of_stages(key), label, number, light)
    axes.set(xlabel="classes the collective knows", ylabel="accuracy on all of them (%)",
             ylim=(0, 103))  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, axes)
    return save(figure, path)


def cycles(group: RunGroup, path: Path) -> Path:
    """Accuracy on old and on new classes over the cycles; 0 is before the first."""
    variants = [variant for variant in group.variants if all(cycle_of(run) for run in variant.runs)]
    if not variants:
        raise NoDataError(NO_STREAM)
    figure = new_figure(4.0)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, classes in zip(panels, ("old", "new"), strict=True):
        for number, variant in enumerate(variants):
            count = len(cycle_of(variant.runs[0])["cycles"])
            for label, key, light in _paths(variant, f"{classes}_accuracy"):
                _line(axes, range(count + 1), variant, _of_cycles(key), label, number, light)
        axes.set_title(f"{classes} classes", loc="left")
        axes.set(xlabel="cycles gone through", ylim=(0, 103))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(
            -0.2, max(len(cycle_of(variant.runs[0])["cycles"]) for variant in variants) + 0.2
        )
    panels[0].set_ylabel("test accuracy (%)")
    legend_above(figure, panels[0])
    return save(figure, path)


@styled
def cycle(results: Results, folder: Path) -> Path:
    """``cycles`` of one run, as a figure of its report."""
    if results["open_world"] is None:
        raise NoDataError(NO_COLLECTIVE)
    variant = Variant("", {}, (results,))
    return cycles(RunGroup(None, results["data"]["name"], (variant,)), folder / "cycle.png")


def _need_collective(group: RunGroup) -> None:
    if any(not (run["collective"] or {}).get("stages") for run in group.runs):
        raise NoDataError(NO_COLLECTIVE)


def _paths(variant: Variant, key: str) -> list[tuple[str, str, bool]]:
    """Label, key and whether it is the light one, of both paths."""
    label = f"{variant.label}, " if variant.label else ""
    return [(label + depth_label(variant.runs), key, False), (label + LIGHT, f"light_{key}", True)]


def _of_stages(key: str) -> Curve:
    return lambda run: [stage.get(key) for stage in run["collective"]["stages"]]


def _of_cycles(key: str) -> Curve:
    def curve(run: Results) -> list[float | None]:
        met = cycle_of(run)
        return [each.get(key) for each in (met["before"], *met["cycles"])]

    return curve


def _line(
    axes: Axes,
    x: Sequence[int],
    variant: Variant,
    curve: Curve,
    label: str,
    number: int,
    light: bool,
) -> None:
    """Mean over the variant's runs; nothing where a path was not there at all."""
    found = [list(curve(run)) for run in variant.runs]
    if any(len(each) != len(x) for each in found):
        raise NoDataError("the seeds differ in their tasks or cycles")
    percent = 100 * np.array(found, float)  # (runs, points)
    there = [
        None
        if np.isnan(values).any()
        else mean_over_runs(list(zip(variant.runs, values.tolist(), strict=True)))
        for values in percent.T
    ]
    if all(mean is None for mean in there):
        return
    mean = np.array([np.nan if m is None else m.mean for m in there])
    half = np.array([np.nan if m is None else m.ci95 or 0.0 for m in there])
    one = not variant.label  # a colour a path, as in the report; else a colour a variant
    colour = GREEN if one and light else COLOURS[number % len(COLOURS)]
    axes.plot(x, mean, color=colour, lw=1.8, ms=5, ls="--" if light else "-", label=label,
              marker=MARKERS[number % len(MARKERS)], mfc="white" if light else colour)  # fmt: skip
    low, high = np.clip(mean - half, 0, None), np.clip(mean + half, None, 100)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
