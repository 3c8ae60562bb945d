"""Draw what was measured over variants and seeds: lines with bands, points with intervals.

Bands and bars are 95 % intervals: over seeds where a variant has three or more, else over all its
clients.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from reports.figures import style
from reports.results import MAIN, REFERENCE
from reports.units import Measured, mean_over_units
from reports.variants import RunGroup, Variant

if TYPE_CHECKING:
    import pandas as pd

    from reports.experiments.base import PaperNumber

PAPER = {"fmt": "D", "mfc": "none", "color": "black", "lw": 0.8, "capsize": 2}
EPOCHS, ACCURACY = "epochs on the client's shard", "test accuracy (%)"
SWEPT = {"shots": "training images of a class, log scale", "ways": "classes of a client"}


def draw_variants(group: RunGroup, path: Path) -> Path:
    """A line a method where shots or ways alone are swept, else what each variant gains."""
    for name in SWEPT:
        if all(
            list(variant.settings) == [name] and isinstance(variant.config(name), int)
            for variant in group.variants
        ):
            return draw_sweep(group, path, name, group.variants[0].methods)
    return draw_gains(group, path)


def draw_gains(group: RunGroup, path: Path) -> Path:
    """What each variant gains over scratch; where nothing is compared, each method's accuracy."""
    compared = all({MAIN, REFERENCE} <= set(variant.methods) for variant in group.variants)
    values = [
        (": ".join(filter(None, (_short(variant.label), name))), measured)
        for variant in group.variants
        for name, measured in _gain_or_accuracies(variant, compared)
    ]
    lines = sum(1 + label.count("\n") for label, _ in values)
    figure, axes = style.new_axes(1.2 + 0.12 * len(values) + 0.18 * lines)
    for place, (_, measured) in enumerate(values):
        interval(axes, place, measured.mean, measured.ci95, color=style.BLUE)
    axes.set_yticks(range(len(values)), [label or "gain" for label, _ in values], fontsize=9)
    axes.set_ylim(len(values) - 0.5, -0.5)
    if compared:
        axes.axvline(0, color=style.GREY, lw=1)
    axes.set_xlabel("gain over scratch (points)" if compared else ACCURACY)
    return style.save(figure, path)


def _gain_or_accuracies(variant: Variant, compared: bool) -> list[tuple[str, Measured]]:
    if compared:
        return [("", variant.mean(variant.differences(MAIN, REFERENCE)))]
    return [(name, variant.accuracy(name)) for name in variant.methods]


def draw_sweep(
    group: RunGroup, path: Path, setting: str, methods: Sequence[str], levels: Sequence[float] = ()
) -> Path:
    """Accuracy over a setting, a line a method and other settings; ``levels`` are marked."""
    figure, axes = style.new_axes(4.0)
    values = sorted({variant.config(setting) for variant in group.variants})
    lines = [(part, name) for part in group.split_by_others(setting) for name in methods]
    for number, (part, name) in enumerate(lines):
        means = [variant.accuracy(name) for variant in part.variants]
        label = ", ".join(filter(None, (name, part.variants[0].label_without([setting]))))
        x = [variant.config(setting) for variant in part.variants]
        line(axes, x, means, label, number)
    for level in levels:
        axes.axhline(100 * level, color=style.GREY, ls=":", lw=1.2)
    if setting == "shots" and len(values) > 1:
        axes.set_xscale("log")
    axes.set_xticks(values, [str(n) for n in values])
    axes.minorticks_off()
    epochs = group.variants[0].config("individual.epochs")
    axes.set(xlabel=SWEPT[setting], ylabel=f"{ACCURACY}, {epochs} epochs")
    return style.save_with_legend(figure, axes, path)


def draw_beside_paper(
    group: RunGroup, path: Path, paper: Callable[[Variant, str, str], PaperNumber | None]
) -> Path:
    """A table as a picture, a panel a variant: ours with its interval, the paper's hollow, with
    its ±; ``paper`` gives the latter for a variant, a method and a data set."""
    panels = group.variants
    count = max(len(variant.methods) for variant in panels)
    figure = style.new_figure((0.8 + 0.3 * count) * len(panels))
    grid = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    for axes, variant in zip(grid, panels, strict=True):
        names = variant.methods
        styles = style.method_style(names)
        for place, name in enumerate(names):
            ours = variant.accuracy(name)
            interval(axes, place, ours.mean, ours.ci95, color=styles[name]["color"])
            if not variant.is_control and (number := paper(variant, name, group.data)):
                interval(axes, place, number.value, number.spread, **PAPER)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        shots = f"{variant.config('shots')} images a class"
        others = variant.label_without(["shots"])
        axes.set_title(", ".join(filter(None, (shots, group.data, others))), loc="left")
    low, high = grid[-1].get_xlim()
    grid[-1].set_xlim(max(0, low), min(100, high))
    grid[-1].set_xlabel(f"{ACCURACY}\nhollow: the paper, with its ±")
    return style.save(figure, path)


def draw_curves(lines: Sequence[tuple[str, Variant, str]], path: Path) -> Path:
    """Accuracy over epochs: a line for each (label, variant, method)."""
    figure, axes = style.new_axes(4.0)
    for number, (label, variant, name) in enumerate(lines):
        line(axes, *mean_curve(100 * variant.curves(name)), label, number)
    axes.set(xlabel=EPOCHS, ylabel=ACCURACY)
    style.whole_numbers(axes.xaxis)
    return style.save_with_legend(figure, axes, path)


def mean_curve(curves: pd.DataFrame) -> tuple[list[float], list[Measured]]:
    """Means at the epochs that every client of every run recorded."""
    common = curves.dropna(axis="columns")
    return list(common.columns), [mean_over_units(common[epoch]) for epoch in common]


def line(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[Measured],
    label: str,
    number: int,
    share: bool = True,
    **look: Any,
) -> None:
    """A line through means with its band; ``share``: of percent, which a band does not leave."""
    mean = np.array([np.nan if m.mean is None else m.mean for m in values])
    half = np.array([m.ci95 or 0.0 for m in values])
    colour = style.LINE_COLOURS[number % len(style.LINE_COLOURS)]
    marker = style.MARKERS[number % len(style.MARKERS)]
    look = {"color": colour, "marker": marker, "ms": 4, "lw": 1.8, **look}
    axes.plot(x, mean, label=label, **look)
    style.band(axes, x, mean, half, colour, share)


def interval(axes: Axes, place: int, mean: float | None, half: float | None, **look: Any) -> None:
    """A point with its interval, where there is one."""
    look = {"fmt": "o", "capsize": 3, "lw": 1.4, "ms": 6, **look}
    if mean is not None:
        axes.errorbar(mean, place, xerr=half or 0.0, **look)


def _short(label: str) -> str:
    """A label that leaves room for the axes: no groups, several lines."""
    pairs = [part.partition("=") for part in label.split(", ")]
    parts = [name.rpartition(".")[2] + sign + value for name, sign, value in pairs]
    return textwrap.fill(", ".join(parts), 34)
