"""The collective's accuracy over its tasks and over open-world cycles, for arms and for one run.

Solid lines with filled marks are the 13 layers (or as many as there are), dashed lines with hollow
marks the light path. Lines are means over seeds; bands are 95 % intervals from three seeds on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reports.experiments.collective import LIGHT, cycle_of, deep
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
from reports.units import over_runs
from reports.variants import Arm, Gathered

COLOURS = (BLUE, VERMILION, GREEN, *OTHERS[1:])
Curve = Callable[[Results], Sequence[float | None]]  # of a run: fractions in 0..1, or none
NO_STREAM = "the collective met no stream: open_world.cycles is 0, or the results do not hold them"


def tasks(gathered: Gathered, path: Path) -> Path:
    """Accuracy on all classes known by then over the tasks, a colour an arm."""
    _need_collective(gathered)
    figure = new_figure(4.2)
    axes = figure.add_subplot()
    for number, arm in enumerate(gathered.arms):
        stages = arm.runs[0]["collective"]["stages"]
        known = [stage["known_classes"] for stage in stages]
        for label, key, light in _paths(arm, "accuracy"):
            _line(axes, known, arm, _of_stages(key), label, number, light)
    axes.set(xlabel="classes the collective knows", ylabel="accuracy on all of them (%)",
             ylim=(0, 103))  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, axes)
    return save(figure, path)


def cycles(gathered: Gathered, path: Path) -> Path:
    """Accuracy on old and on new classes over the cycles; 0 is before the first."""
    arms = [arm for arm in gathered.arms if all(cycle_of(run) for run in arm.runs)]
    if not arms:
        raise NoDataError(NO_STREAM)
    figure = new_figure(4.0)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, classes in zip(panels, ("old", "new"), strict=True):
        for number, arm in enumerate(arms):
            count = len(cycle_of(arm.runs[0])["cycles"])
            for label, key, light in _paths(arm, f"{classes}_accuracy"):
                _line(axes, range(count + 1), arm, _of_cycles(key), label, number, light)
        axes.set_title(f"{classes} classes", loc="left")
        axes.set(xlabel="cycles gone through", ylim=(0, 103))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(-0.2, max(len(cycle_of(arm.runs[0])["cycles"]) for arm in arms) + 0.2)
    panels[0].set_ylabel("test accuracy (%)")
    legend_above(figure, panels[0])
    return save(figure, path)


@styled
def cycle(results: Results, folder: Path) -> Path:
    """``cycles`` of one run, as a figure of its report."""
    if results["open_world"] is None:
        raise NoDataError(NO_COLLECTIVE)
    arm = Arm("", {}, (results,))
    return cycles(Gathered(None, results["data"]["name"], (arm,)), folder / "cycle.png")


def _need_collective(gathered: Gathered) -> None:
    if any(not (run["collective"] or {}).get("stages") for run in gathered.runs):
        raise NoDataError(NO_COLLECTIVE)


def _paths(arm: Arm, key: str) -> list[tuple[str, str, bool]]:
    """Label, key and whether it is the light one, of both paths."""
    label = f"{arm.label}, " if arm.label else ""
    return [(label + deep(arm.runs), key, False), (label + LIGHT, f"light_{key}", True)]


def _of_stages(key: str) -> Curve:
    return lambda run: [stage.get(key) for stage in run["collective"]["stages"]]


def _of_cycles(key: str) -> Curve:
    def curve(run: Results) -> list[float | None]:
        met = cycle_of(run)
        return [each.get(key) for each in (met["before"], *met["cycles"])]

    return curve


def _line(
    axes: Axes, x: Sequence[int], arm: Arm, curve: Curve, label: str, number: int, light: bool
) -> None:
    """Mean over the arm's runs; nothing where a path was not there at all."""
    found = [list(curve(run)) for run in arm.runs]
    if any(len(each) != len(x) for each in found):
        raise NoDataError("the seeds differ in their tasks or cycles")
    points = [[values[i] for values in found] for i in range(len(x))]
    if all(None in values for values in points):
        return
    there = [
        None
        if None in values
        else over_runs([(run, 100 * v) for run, v in zip(arm.runs, values, strict=True)])
        for values in points
    ]
    mean = np.array([np.nan if m is None else m.mean for m in there])
    half = np.array([np.nan if m is None else m.ci95 or 0.0 for m in there])
    one = not arm.label  # a colour a path, as in the report; else a colour an arm
    colour = GREEN if one and light else COLOURS[number % len(COLOURS)]
    axes.plot(x, mean, color=colour, lw=1.8, ms=5, ls="--" if light else "-", label=label,
              marker=MARKERS[number % len(MARKERS)], mfc="white" if light else colour)  # fmt: skip
    low, high = np.clip(mean - half, 0, None), np.clip(mean + half, None, 100)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
