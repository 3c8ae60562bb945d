"""Accuracy against the bytes that a client receives, and the Pareto front of one or more runs.

    python sim.py -m individual.stem=separable,seeded learngene.precision=fp32,fp16,int8
    python -m reports.experiments.frontier multirun/DATE/TIME -o frontier

A run gives one point a method; a learngene has one stem and one precision a run, so several runs
are put into one picture (``frontier.png`` and ``frontier.csv``), of one experiment or several. A
learngene's point is named after its stem and precision; several seeds are averaged.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from learngene.utils.files import write_atomically
from reports.experiments.paper import OPPONENTS
from reports.figures.pareto import Point, front, gather, points
from reports.figures.style import (
    GREY,
    MARKERS,
    NoDataError,
    method_style,
    new_figure,
    save,
    spread,
    styled,
)
from reports.format import percent, size
from reports.results import MAIN, REFERENCE
from reports.runs import GatherError, OutputError, writing
from reports.schema import Results

FILLED = {"fp32": "full", "fp16": "left", "int8": "none"}  # how a marker is, by number format
NAME_POINTS = 9  # type size of the names beside the axes
KNOWN = (*(f"{MAIN} {stem}" for stem in ("separable", "seeded", "whole", "fresh")), *OPPONENTS)


def draw(axes: Axes, of: Sequence[Point]) -> None:
    """The points, and a line through the front.

    A method sent in several number formats is one line of points, filled by format; its name stands
    beside the axes, where twenty names fit without lying on one another.
    """
    on_front = front(of)
    sent = [p for p in of if p.method != REFERENCE]
    # Scratch is sent nothing to speak of. At its place on the axis, three decades to the left of
    # the others, it would crowd them into the last one: it is a level.
    levels = [p for p in of if p.method == REFERENCE] if sent else []
    of = sent or of
    names = list(dict.fromkeys(point.series for point in of))
    colours = method_style([REFERENCE, *dict.fromkeys(point.method for point in of)])
    best = [p for p in on_front if p in of]
    step = axes.step([p.bytes for p in best], [100 * p.accuracy for p in best], where="post",
                     color=GREY, lw=1.4, ls="--", zorder=3, label="Pareto front")  # fmt: skip
    axes.plot([p.bytes for p in best], [100 * p.accuracy for p in best], "o", ms=13, mfc="none",
              color=GREY, mew=1, zorder=3)  # fmt: skip
    last: dict[str, Point] = {}  # of each line, where its name points to
    for name in names:
        line = sorted((p for p in of if p.series == name), key=lambda each: each.bytes)
        last[name] = line[-1]
        look = {"color": colours[line[0].method]["color"], "marker": _marker(name, names)}
        axes.plot([p.bytes for p in line], [100 * p.accuracy for p in line], lw=1,
                  color=look["color"])  # fmt: skip
        for point in line:
            at = point.bytes, 100 * point.accuracy
            axes.errorbar(*at, yerr=100 * (point.ci95 or 0.0), capsize=2, lw=0.6, linestyle="",
                          color=look["color"], alpha=0.5)  # fmt: skip
            axes.plot(*at, ms=7, linestyle="", markerfacecoloralt="white",
                      fillstyle=FILLED[point.sent_as], **look)  # fmt: skip
    for level in levels:
        axes.axhline(100 * level.accuracy, color=colours[REFERENCE]["color"], ls=":", lw=1.6)
    axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: size(x).replace(".0 ", " "))
    axes.set(xlabel="bytes received per client, log scale", ylabel="test accuracy (%)")
    signs = [Line2D([], [], color=GREY, marker="o", ls="", fillstyle=FILLED[form], label=form,
                    markerfacecoloralt="white")
             for form in FILLED if any(p.sent_as == form for p in of)]  # fmt: skip
    axes.legend(handles=[*step, *(signs if len(signs) > 1 else [])], loc="lower left",
                bbox_to_anchor=(0, 1), ncols=4, fontsize=NAME_POINTS)  # fmt: skip
    _names_beside(axes, last, {_told(p, p in on_front): p for p in levels})


def _marker(name: str, names: Sequence[str]) -> str:
    """The same in every figure for the methods that a name is known of."""
    order = [*KNOWN, *(each for each in names if each not in KNOWN)]
    return MARKERS[order.index(name) % len(MARKERS)]


def _told(level: Point, best: bool) -> str:
    return f"{level.label}, {size(level.bytes)}{' (on the front)' if best else ''}"


def _names_beside(axes: Axes, last: dict[str, Point], levels: dict[str, Point]) -> None:
    """Names in a column on the right, each with a thin line to its points, scratch's to its level,
    with what it receives."""
    ends = [(name, point.bytes, 100 * point.accuracy) for name, point in last.items()]
    for name, level in levels.items():
        ends.append((name, axes.get_xlim()[1], 100 * level.accuracy))
    low, high = axes.get_ylim()
    figure = axes.get_figure()
    assert figure is not None
    inches = figure.get_figheight() * 0.8  # of the axes, as constrained layout will have them
    gap = (high - low) * NAME_POINTS * 1.25 / (72 * inches)
    at = spread([height for *_, height in ends], gap, low, high)
    axes.set_ylim(low, high)
    for (name, x, height), y in zip(ends, at, strict=True):
        axes.annotate(
            name, (x, height), (1.04, y),
            textcoords=axes.get_yaxis_transform(), fontsize=NAME_POINTS, va="center",
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.5, "shrinkB": 4},
        )  # fmt: skip


@styled
def frontier(results: Results, folder: Path) -> Path:
    """The run's methods by cost and accuracy."""
    found = points(results)
    if not found:
        raise NoDataError("no client answered")
    if len(found) < 3:
        raise NoDataError("the run compares fewer than three methods")
    return save(_figure(found), folder / "frontier.png")


def _figure(found: Sequence[Point]):  # type: ignore[no-untyped-def]
    figure = new_figure(4.5)
    draw(figure.add_subplot(), found)
    return figure


def alt(results: Results) -> str:
    """The figure in words."""
    found = points(results)
    said = [f"{p.label} {percent(p.accuracy)} for {size(p.bytes)}" for p in found]
    best = ", ".join(point.label for point in front(found))
    return f"Accuracy against bytes received: {'; '.join(said)}. On the Pareto front: {best}."


@styled
def _together(results: Results, path: Path) -> Path:
    return save(_figure(results["points"]), path)


def table(of: Sequence[Point]) -> str:
    """The points as CSV; ``front`` says which none beats."""
    best, text = front(of), io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("label", "method", "bytes", "accuracy", "ci95", "front"))
    for p in of:
        writer.writerow((p.label, p.method, round(p.bytes), p.accuracy, p.ci95, int(p in best)))
    return text.getvalue()


def main(arguments: list[str]) -> int:
    """Draw several runs together; the exit code is 2 where there is nothing to draw."""
    parser = argparse.ArgumentParser(prog="python -m reports.experiments.frontier")
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN_OR_MULTIRUN_DIR")
    parser.add_argument("-o", "--out", type=Path, default=Path("frontier"), metavar="DIR")
    asked = parser.parse_args(arguments)
    try:
        found = gather(asked.folders)
        with writing(asked.out):
            print(_together({"points": found}, asked.out / "frontier.png"))
            write_atomically(asked.out / "frontier.csv", table(found).encode())
    except (GatherError, OutputError) as error:
        print(f"reports.experiments.frontier: {error}", file=sys.stderr)
        return 2
    for point in front(found):
        print(f"{point.label}: {percent(point.accuracy, point.ci95)} for {size(point.bytes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
