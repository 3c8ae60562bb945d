"""Accuracy against the bytes that a client receives, and the Pareto front of one or more runs.

    python sim.py -m individual.stem=separable,seeded learngene.precision=fp32,fp16,int8
    python -m server.frontier multirun/DATE/TIME -o frontier

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

from learngene.files import write_atomically
from server.plotting import (
    GREY,
    NoDataError,
    method_style,
    new_figure,
    save,
    styled,
)
from server.points import Point, front, gather, points
from server.runs import GatherError
from server.wording import Results, percent, size


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
    parser = argparse.ArgumentParser(prog="python -m server.frontier")
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUN_OR_MULTIRUN_DIR")
    parser.add_argument("-o", "--out", type=Path, default=Path("frontier"), metavar="DIR")
    asked = parser.parse_args(arguments)
    try:
        found = gather(asked.folders)
    except GatherError as error:
        print(f"server.frontier: {error}", file=sys.stderr)
        return 2
    print(_together({"points": found}, asked.out / "frontier.png"))
    write_atomically(asked.out / "frontier.csv", table(found).encode())
    for point in front(found):
        print(f"{point.label}: {percent(point.accuracy, point.ci95)} for {size(point.bytes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
