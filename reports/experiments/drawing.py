"""The figure of an experiment, over its arms and seeds, with the paper's axes.

Bands are 95 % intervals: over seeds where an arm has three or more, else over all its clients.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reports.experiments import bound as rows_bound
from reports.experiments import paper, rows_figures
from reports.experiments.base import lacking, methods
from reports.experiments.bound_fit import LEAST_SIZES
from reports.experiments.figures_rho import beside, trends
from reports.experiments.frontier import draw as draw_frontier
from reports.experiments.tables_2_3 import table3_of
from reports.figures.gradcam import contact_sheet
from reports.figures.over_tasks import cycles, tasks
from reports.figures.pareto import of_arms
from reports.figures.style import (
    BLUE,
    GREEN,
    GREY,
    MARKERS,
    OTHERS,
    STYLE,
    VERMILION,
    NoDataError,
    legend_above,
    method_style,
    new_figure,
    save,
)
from reports.results import MAIN, REFERENCE
from reports.summary import answered
from reports.units import Measured, Unit, accuracies, differences, over
from reports.variants import Arm, Gathered, groups

LINES = (BLUE, VERMILION, GREEN, *OTHERS[1:])
EPOCHS, ACCURACY = "epochs on the client's shard", "test accuracy (%)"


def draw(gathered: Gathered, path: Path) -> Path:
    """Draw the experiment's figure.

    Raises:
        NoDataError: the runs do not hold what it shows.
    """
    if not any(answered(run) for run in gathered.runs):
        raise NoDataError("no client answered")
    if absent := lacking(gathered):
        raise NoDataError(f"{gathered.experiment} compares {absent[0]}, which a run has not")
    with matplotlib.rc_context(STYLE):
        return FIGURES.get(gathered.experiment or "", by_arm)(gathered, path)


def curves(gathered: Gathered, path: Path) -> Path:
    """Figure 4 (a, b): accuracy over epochs, a line a method."""
    several = len(gathered.arms) > 1
    shown = [(arm, name) for arm in gathered.arms for name in methods(arm)]
    return _over_epochs(
        [(f"{name}, {arm.label}" if several else name, arm, name) for arm, name in shown], path
    )


def _over_epochs(lines: Sequence[tuple[str, Arm, str]], path: Path) -> Path:
    """Accuracy over epochs: a line for each (label, arm, method)."""
    figure = new_figure(4.0)
    axes = figure.add_subplot()
    for number, (label, arm, name) in enumerate(lines):
        _line(axes, *_by_epoch(arm, name), label, number)
    axes.set(xlabel=EPOCHS, ylabel=ACCURACY)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, axes)
    return save(figure, path)


def samples(gathered: Gathered, path: Path) -> Path:
    """Figure 4 (c, d): accuracy over images per class."""
    figure = new_figure(4.0)
    axes = figure.add_subplot()
    shots = sorted({arm.config("shots") for arm in gathered.arms})
    shown = [(group, name) for group in groups(gathered, "shots") for name in (MAIN, REFERENCE)]
    for number, (group, name) in enumerate(shown):
        found = [arm.measured(accuracies(name)) for arm in group.arms]
        label = ", ".join(filter(None, (name, group.arms[0].label_without(["shots"]))))
        _line(axes, [arm.config("shots") for arm in group.arms], found, label, number)
    for level in rows_figures.LEVELS:
        axes.axhline(100 * level, color=GREY, ls=":", lw=1.2)
    if len(shots) > 1:
        axes.set_xscale("log")
    axes.set_xticks(shots, [str(n) for n in shots])
    axes.minorticks_off()
    epochs = gathered.arms[0].config("individual.epochs")
    axes.set(xlabel="training images of a class, log scale", ylabel=f"{ACCURACY}, {epochs} epochs")
    legend_above(figure, axes)
    return save(figure, path)


def attention(gathered: Gathered, path: Path) -> Path:
    """Figure 5, of the first seed: maps of several collectives cannot be averaged."""
    return contact_sheet(gathered.runs[0], path)


def evolution(gathered: Gathered, path: Path) -> Path:
    """Figure 6 (a): accuracy of the same clients by what the collective knew."""
    figure = new_figure(4.0)
    axes = figure.add_subplot()
    for number, arm in enumerate(gathered.arms):
        runs = [run for run in arm.runs if run.get("rounds")]
        if not runs:
            raise NoDataError("a run has one round; rounds=R reconstructs at R points")
        known = [each["known_classes"] for each in runs[0]["rounds"]]
        found = [over([rows_figures.of_round(run, i) for run in runs]) for i in range(len(known))]
        _line(axes, known, found, arm.label or MAIN, 2 * number)
        if REFERENCE in methods(arm):  # it does not change with the collective
            level = arm.measured(accuracies(REFERENCE)).mean
            axes.axhline(level, color=LINES[1], ls="--", lw=1.6, label=REFERENCE if not number
                         else None)  # fmt: skip
        axes.set_xticks(known)
    axes.set(xlabel="classes the collective knows", ylabel=ACCURACY)
    legend_above(figure, axes)
    return save(figure, path)


def positions(gathered: Gathered, path: Path) -> Path:
    """Figure 6 (b): accuracy over epochs, a line a position; below it what the top is ahead of each
    other one by, paired by client: intervals of accuracies are of clients and hide that."""
    lines = []
    for arm in gathered.arms:
        layers, more = rows_figures.layers_of(arm), arm.label_without(["learngene.layers"])
        label = ", ".join(filter(None, (f"layers {layers[0]} to {layers[-1]}", more)))
        lines.append((label, arm, MAIN))
    tops = {  # of the other arms, by label: the top of those that only the layers tell apart
        arm.label: top
        for group in groups(gathered, "learngene.layers")
        if (top := rows_figures.top_of(group.arms)) is not None
        for arm in group.arms
        if arm is not top
    }
    if not tops:
        return _over_epochs(lines, path)
    figure = new_figure(6.5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for number, (label, arm, name) in enumerate(lines):
        _line(above, *_by_epoch(arm, name), label, number)
        if top := tops.get(arm.label):
            _line(below, *_ahead(top, arm), label, number, share=False)
    above.set(ylabel=ACCURACY)
    below.axhline(0, color=GREY, lw=1)
    below.set(xlabel=EPOCHS, ylabel="top ahead (points)")
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, above)
    return save(figure, path)


def _ahead(top: Arm, other: Arm) -> tuple[list[float], list[Measured]]:
    """What one arm is ahead of another by, percentage points, at the epochs that both recorded."""
    mine, theirs = (_curves(arm, MAIN) for arm in (top, other))
    both = {unit: (mine[unit], theirs[unit]) for unit in mine if unit in theirs}
    epochs = _common([set(a) & set(b) for a, b in both.values()])
    return epochs, [
        over([{unit: 100 * (a[epoch] - b[epoch]) for unit, (a, b) in both.items()}])
        for epoch in epochs
    ]


def table(gathered: Gathered, path: Path) -> Path:
    """Tables 2 and 3 as a picture: ours with its interval, the paper's hollow, with its ±."""
    panels = gathered.arms
    count = max(len(methods(arm)) for arm in panels)
    figure = new_figure((0.8 + 0.3 * count) * len(panels))
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, arm in zip(grid, panels, strict=True):
        names = methods(arm)
        for place, name in enumerate(names):
            _bar(axes, place, arm.measured(accuracies(name)), method_style(names)[name]["color"])
            quoted = (
                paper.table2(name, gathered.data)
                if gathered.experiment == "table2_open_world"
                else table3_of(arm, name, gathered.data)
            )
            if quoted:
                axes.errorbar(quoted.value, place, xerr=quoted.spread or 0.0, fmt="D", mfc="none",
                              color="black", ms=6, lw=0.8, capsize=2)  # fmt: skip
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_title(f"{arm.config('shots')} images a class, {gathered.data}", loc="left")
    low, high = grid[-1].get_xlim()
    grid[-1].set_xlim(max(0, low), min(100, high))
    grid[-1].set_xlabel(f"{ACCURACY}; hollow: the paper, with its ±")
    return save(figure, path)


def by_arm(gathered: Gathered, path: Path) -> Path:
    """What each arm gains over scratch; where nothing is compared, each method's accuracy."""
    compared = all({MAIN, REFERENCE} <= set(methods(arm)) for arm in gathered.arms)
    if compared:
        found = [(_short(arm.label) or "gain", arm.measured(differences(MAIN, REFERENCE)))
                 for arm in gathered.arms]  # fmt: skip
    else:
        found = [(": ".join(filter(None, (_short(arm.label), name))),
                  arm.measured(accuracies(name)))
                 for arm in gathered.arms for name in methods(arm)]  # fmt: skip
    lines = sum(1 + label.count("\n") for label, _ in found)
    figure = new_figure(1.2 + 0.12 * len(found) + 0.18 * lines)
    axes = figure.add_subplot()
    for place, (_, measured) in enumerate(found):
        _bar(axes, place, measured, BLUE)
    axes.set_yticks(range(len(found)), [label for label, _ in found], fontsize=9)
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.axvline(0, color=GREY, lw=1) if compared else None
    axes.set_xlabel("gain over scratch (points)" if compared else ACCURACY)
    return save(figure, path)


def bound(gathered: Gathered, path: Path) -> Path:
    """Theorem 1: gaps over sample sizes with the fit; too few sizes for one show what runs gain."""
    few = rows_bound.sizes(gathered) < LEAST_SIZES
    return by_arm(gathered, path) if few else rows_bound.figure(gathered, path)


def frontier(gathered: Gathered, path: Path) -> Path:
    """Accuracy against bytes, every arm's methods in one picture (scratch once)."""
    figure = new_figure(4.5)
    draw_frontier(figure.add_subplot(), list(dict.fromkeys(of_arms(gathered).values())))
    return save(figure, path)


FIGURES: dict[str, Callable[[Gathered, Path], Path]] = {
    "bound": bound,
    "class_incremental": tasks,
    "fig3_criterion": trends,
    "fig4_curves": curves,
    "fig4_samples": samples,
    "fig5_gradcam": attention,
    "fig6a_evolution": evolution,
    "fig6b_position": positions,
    "frontier": frontier,
    "growth_ablation": beside,
    "open_world_cycle": cycles,
    "table2_open_world": table,
    "table3_novel": table,
}


def _short(label: str) -> str:
    """A label that leaves room for the axes: no groups, several lines."""
    pairs = [part.partition("=") for part in label.split(", ")]
    parts = [name.rpartition(".")[2] + sign + value for name, sign, value in pairs]
    return textwrap.fill(", ".join(parts), 34)


def _by_epoch(arm: Arm, method: str) -> tuple[list[float], list[Measured]]:
    """Accuracy at the epochs that every client of every run recorded."""
    curves = _curves(arm, method)
    epochs = _common([set(curve) for curve in curves.values()])
    return epochs, [
        over([{unit: 100 * curve[epoch] for unit, curve in curves.items()}]) for epoch in epochs
    ]


def _curves(arm: Arm, method: str) -> dict[Unit, dict[float, float]]:
    """By client, of all runs: accuracy at each epoch."""
    return {
        unit: dict(curve)
        for run in arm.runs
        for unit, curve in rows_figures.curves(run, method).items()
    }


def _common(of: Sequence[set[float]]) -> list[float]:
    """What all have, in order; nothing where there is nobody."""
    return sorted(set.intersection(*of)) if of else []


def _line(
    axes: Axes,
    x: Sequence[float],
    found: Sequence[Measured],
    label: str,
    number: int,
    share: bool = True,
) -> None:
    """A line through means with its band; ``share``: of percent, which a band does not leave."""
    mean = np.array([np.nan if m.mean is None else m.mean for m in found])
    half = np.array([m.ci95 or 0.0 for m in found])
    colour = LINES[number % len(LINES)]
    axes.plot(x, mean, color=colour, marker=MARKERS[number % len(MARKERS)], ms=4, lw=1.8,
              label=label)  # fmt: skip
    low, high = mean - half, mean + half
    if share:
        low, high = np.clip(low, 0, None), np.clip(high, None, 100)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)


def _bar(axes: Axes, place: int, measured: Measured, colour: str) -> None:
    """A point with its interval."""
    if measured.mean is not None:
        axes.errorbar(measured.mean, place, xerr=measured.ci95 or 0.0, fmt="o", color=colour,
                      capsize=3, lw=1.4, ms=6)  # fmt: skip
