"""Accuracy against the bytes that a client receives, and the Pareto front of one or more runs.

    python -m server.frontier RUN_DIR... --out frontier.png

A run gives one point a method; several runs (stems, precisions) are put into one picture. A
learngene's point is named after its stem and precision.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes

from server.plotting import (
    GREY,
    NoDataError,
    method_style,
    new_figure,
    save,
    styled,
)
from server.results import MAIN, read_results
from server.wording import Results, answered, method_names, percent, size


@dataclass(frozen=True)
class Point:
    """What a method costs and brings."""

    method: str
    label: str
    bytes: float  # that one client receives, mean
    accuracy: float  # mean over clients, a fraction
    ci95: float | None


def points(results: Results) -> list[Point]:
    """One point a method of a run, in the run's order."""
    clients = answered(results)
    if not clients:
        return []
    made = []
    for name in method_names(results):
        summary = results["summary"][name]
        received = fmean(client["methods"][name]["bytes_down"] for client in clients)
        made.append(Point(name, label(results, name), received, summary["mean"], summary["ci95"]))
    return made


def label(results: Results, method: str) -> str:
    """The method's name; of a learngene with its stem, and its precision where that is not fp32."""
    gene = results["learngene"] or {}
    if method != MAIN or not gene.get("stem"):
        return method
    precision = (results["run"].get("config") or {}).get("learngene", {}).get("precision", "fp32")
    return f"{method} {gene['stem']}" + (f" {precision}" if precision != "fp32" else "")


def front(of: Sequence[Point]) -> list[Point]:
    """The points that none beats: no other is as accurate for fewer bytes, or better for as many.

    Fewest bytes first.
    """
    chosen: list[Point] = []
    for point in sorted(of, key=lambda each: (each.bytes, -each.accuracy)):
        if not chosen or point.accuracy > chosen[-1].accuracy:
            chosen.append(point)
    return chosen


def draw(axes: Axes, of: Sequence[Point]) -> None:
    """The points, named, and a line through the front."""
    names = list(dict.fromkeys(point.method for point in of))
    style = method_style(names)
    best = front(of)
    axes.step([p.bytes for p in best], [100 * p.accuracy for p in best], where="post",
              color=GREY, lw=1.2, ls="--", label="Pareto front")  # fmt: skip
    for point in of:
        half = 100 * (point.ci95 or 0.0)
        axes.errorbar(point.bytes, 100 * point.accuracy, yerr=half, capsize=2, lw=1, ms=7,
                      linestyle="", **style[point.method])  # fmt: skip
        axes.annotate(
            point.label, (point.bytes, 100 * point.accuracy), (5, 4),
            textcoords="offset points", fontsize=9,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.xaxis.set_major_formatter(lambda x, _: size(x).replace(".0 ", " "))
    axes.set(xlabel="bytes received per client, log scale", ylabel="test accuracy (%)")
    axes.legend(loc="lower right", fontsize=9)


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


def main(arguments: list[str]) -> int:
    """Draw several runs together; the exit code is 2 where there is nothing to draw."""
    parser = argparse.ArgumentParser(prog="python -m server.frontier")
    parser.add_argument("run_dirs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("frontier.png"))
    asked = parser.parse_args(arguments)
    found: dict[str, Point] = {}
    for folder in asked.run_dirs:
        try:
            results = read_results(folder / "results.json")
        except (OSError, ValueError) as error:
            print(f"{folder}: no usable results: {error}", file=sys.stderr)
            return 2
        found |= {point.label: point for point in points(results)}
    if not found:
        print("no client answered in these runs", file=sys.stderr)
        return 2
    print(_together({"points": list(found.values())}, asked.out))
    for point in front(list(found.values())):
        print(f"{point.label}: {percent(point.accuracy, point.ci95)} for {size(point.bytes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
