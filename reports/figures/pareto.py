"""Accuracy against the bytes that a client receives, and the Pareto front.

A run gives one point a method. A learngene's point is named after the layers that clients took, and
its precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from reports.experiments.base import OPPONENTS
from reports.figures import style
from reports.form import joined_below
from reports.format import format_bytes
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.summary import answered, client_mean, method_names

LITTLE = 4000  # bytes by which the settings in a message may differ between runs; 1,141 were seen
FILLED = {"fp32": "full", "fp16": "left", "int8": "none"}  # how a marker is, by number format
NAME_POINTS = 9  # type size of the names beside the axes
GAP = 1.25 * NAME_POINTS  # from one name to the next, points


@dataclass(frozen=True)
class Point:
    """What a method costs and brings."""

    method: str
    label: str
    bytes: float  # that one client receives, mean
    accuracy: float  # mean over clients, a fraction
    ci95: float | None
    sent_as: str = "fp32"  # the number format of what is sent

    @property
    def series(self) -> str:
        """What it shares with the same thing sent in other number formats."""
        return self.label.replace(f" {self.sent_as}", "")


def cost_accuracy_points(results: Results) -> list[Point]:
    """One point a method of a run, in the run's order."""
    measured = []
    for name in method_names(results):
        summary, received = results["summary"][name], client_mean(results, name, "bytes_down")
        if received is not None:
            label, sent_as = _named(results, name)
            measured.append(Point(name, label, received, summary["mean"], summary["ci95"], sent_as))
    return measured


def _named(results: Results, method: str) -> tuple[str, str]:
    """The method's name; of a learngene with the layers taken, and those joined (1-11+5+7). Where
    the format is not fp32, with that. And the number format by itself. Scratch is sent nothing.
    """
    config, gene = results["run"].get("config") or {}, results["learngene"] or {}
    if method == REFERENCE:
        return method, "fp32"
    if method == MAIN and (layers := gene.get("layers")):
        taken = {client["methods"][MAIN].get("depth", len(layers)) for client in answered(results)}
        runs = [f"{layers[0]}-{layers[depth - 1]}" for depth in sorted(taken)]
        asked = config.get("learngene", {})
        beside = "".join(f"+{each}" for each in joined_below(asked, layers[max(taken) - 1]))
        method = f"{method} {' to '.join(dict.fromkeys((runs[0], runs[-1])))}{beside}"
        precision = asked.get("precision", "fp32")
    else:
        precision = config.get("payload_precision", "fp32")
    return method + (f" {precision}" if precision != "fp32" else ""), precision


def front(candidates: Sequence[Point]) -> list[Point]:
    """The points that none beats: no other is as accurate for fewer bytes, or better for as many.

    Costs within ``LITTLE`` are the same: a method's name in its message is no cost. Fewest bytes
    first; of points that are alike, one.
    """
    order = sorted(candidates, key=lambda point: (point.bytes, -point.accuracy))

    def beaten(at: int) -> bool:
        point = order[at]
        return any(
            (other.bytes <= point.bytes + LITTLE and other.accuracy > point.accuracy)
            or (place < at and other.accuracy == point.accuracy)
            for place, other in enumerate(order)
        )

    return [point for at, point in enumerate(order) if not beaten(at)]


@style.styled
def save_points(every: Sequence[Point], path: Path) -> Path:
    """Draw the points of one run or several, and a line through the front.

    A method sent in several number formats is one line of points, filled by format; its name stands
    beside the axes, where twenty names fit without lying on one another.
    """
    on_front = front(every)
    sent = [p for p in every if p.method != REFERENCE]
    # Scratch is sent nothing to speak of. At its place on the axis, three decades to the left of
    # the others, it would crowd them into the last one: it is a level.
    levels = [p for p in every if p.method == REFERENCE] if sent else []
    shown = sent or every
    names = list(dict.fromkeys(point.series for point in shown))
    # As high as the column of names is long.
    figure, axes = style.new_axes(max(4.5, 1.2 + GAP * (len(names) + len(levels)) / 72))
    colours = style.method_style([REFERENCE, *dict.fromkeys(point.method for point in shown)])
    best = _coordinates([p for p in on_front if p in shown])
    step = axes.step(
        *best, where="post", color=style.GREY, lw=1.4, ls="--", zorder=3, label="Pareto front"
    )
    axes.plot(*best, "o", ms=13, mfc="none", color=style.GREY, mew=1, zorder=3)
    last: dict[str, Point] = {}  # of each line, where its name points to
    for name in names:
        line = sorted((p for p in shown if p.series == name), key=lambda point: point.bytes)
        last[name] = line[-1]
        colour = colours[line[0].method]["color"]
        axes.plot(*_coordinates(line), lw=1, color=colour)
        for point in line:
            at, half = _coordinates([point]), 100 * (point.ci95 or 0.0)
            axes.errorbar(*at, yerr=half, capsize=2, lw=0.6, linestyle="", color=colour, alpha=0.5)
            axes.plot(*at, ms=7, color=colour, marker=_marker(name, names), **_fill(point.sent_as))
    for level in levels:
        axes.axhline(100 * level.accuracy, color=colours[REFERENCE]["color"], ls=":", lw=1.6)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    low, high = axes.get_xlim()
    decades = log10(high / low)
    marks = (1, 2, 3, 5) if decades < 1.5 else (1, 3) if decades < 3 else (1,)  # that have room
    axes.xaxis.set_major_locator(LogLocator(subs=marks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", labelsize=NAME_POINTS)
    axes.xaxis.set_major_formatter(style.size_tick)
    axes.set(xlabel="bytes received per client, log scale", ylabel="test accuracy (%)")
    forms = [form for form in FILLED if any(p.sent_as == form for p in shown)]
    signs = [
        Line2D([], [], color=style.GREY, marker="o", label=form, **_fill(form))
        for form in (forms if len(forms) > 1 else [])
    ]
    where: style.Look = {"loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 4}
    axes.legend(handles=[*step, *signs], fontsize=NAME_POINTS, **where)
    ends = {True: " (on the front)", False: ""}
    named = {f"{p.label}, {format_bytes(p.bytes)}{ends[p in on_front]}": p for p in levels}
    _names_beside(axes, last, named)
    return style.save(figure, path)


def _coordinates(line: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Bytes and percent."""
    return [point.bytes for point in line], [100 * point.accuracy for point in line]


def _fill(form: str) -> style.Look:
    """A marker without a line, filled by number format."""
    return {"ls": "", "fillstyle": FILLED[form], "markerfacecoloralt": "white"}


def _marker(name: str, names: Sequence[str]) -> str:
    """The same in every figure for the methods that a name is known of."""
    order = list(dict.fromkeys((*OPPONENTS, *names)))
    return style.MARKERS[order.index(name) % len(style.MARKERS)]


def _names_beside(axes: Axes, last: dict[str, Point], levels: dict[str, Point]) -> None:
    """Names in a column on the right, each with a thin line to its points, scratch's to its level,
    with what it receives."""
    ends = [(name, point.bytes, 100 * point.accuracy) for name, point in last.items()]
    for name, level in levels.items():
        ends.append((name, axes.get_xlim()[1], 100 * level.accuracy))
    low, high = axes.get_ylim()
    figure = axes.get_figure(root=True)
    assert figure is not None
    inches = figure.get_figheight() * 0.8  # of the axes, as constrained layout will have them
    gap = (high - low) * GAP / (72 * inches)
    at = style.spread([height for *_, height in ends], gap, low, high)
    axes.set_ylim(low, high)
    thin: style.Look = {"arrowstyle": "-", "color": style.GREY, "lw": 0.5, "shrinkB": 4}
    thin["relpos"] = (0, 0.5)  # to where a name begins, not through it
    across = axes.get_yaxis_transform()
    column: style.Look = {"textcoords": across, "va": "center", "arrowprops": thin}
    for (name, x, height), y in zip(ends, at, strict=True):
        axes.annotate(name, (x, height), (1.04, y), fontsize=NAME_POINTS, **column)


@style.styled
def frontier(results: Results, path: Path) -> Path:
    """The run's methods by cost and accuracy."""
    measured = cost_accuracy_points(results)
    if not measured:
        raise style.NoDataError("no client answered")
    if len(measured) < 3:
        raise style.NoDataError("the run compares fewer than three methods")
    return save_points(measured, path)
