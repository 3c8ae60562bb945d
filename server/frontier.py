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
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes

from learngene.files import write_atomically
from server.arms import Gathered, must_share
from server.plotting import (
    GREY,
    NoDataError,
    method_style,
    new_figure,
    save,
    styled,
)
from server.results import MAIN
from server.runs import GatherError, find_runs, must_agree
from server.units import accuracies, over, seeds_of
from server.wording import Results, answered, method_names, percent, size

# What the runs of one picture may differ in, besides seeds and circumstances.
FREE = ("individual.stem", "learngene.precision", "methods", "experiment")


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


def gather(folders: Sequence[Path]) -> list[Point]:
    """The points of all runs in the folders. Seeds are averaged; what several runs measured alike
    is one point; what they measured differently under one name and one seed stays apart, named
    after the runs.

    Raises:
        GatherError: the runs differ in something else than stem, precision and methods, not all
            methods were run on the same clients, or nobody answered in any.
    """
    runs = find_runs(folders)
    must_agree(runs, "data, sha256", lambda results: results["data"]["sha256"])
    must_share(runs, FREE)
    found: dict[str, list[tuple[Path, Results, Point]]] = {}
    for folder, results in runs:
        for point in points(results):
            same = found.setdefault(point.label, [])
            if all(_unlike(point, p) or seeds_of(results) != seeds_of(r) for _, r, p in same):
                same.append((folder, results, point))
    if not found:
        raise GatherError("no client answered in these runs")
    of = {label: {seeds_of(results)[1] for _, results, _ in same} for label, same in found.items()}
    (first, seeds), *others = of.items()
    for label, theirs in others:
        if theirs != seeds:
            raise GatherError(
                f"{first} was run with shard seeds {sorted(seeds)}, {label} with {sorted(theirs)}: "
                "these are other clients; run both with the same seeds"
            )
    return [point for same in found.values() for point in _of_one_name(same)]


def _of_one_name(same: Sequence[tuple[Path, Results, Point]]) -> list[Point]:
    """One point, the mean over seeds; several where two runs of one seed contradict each other."""
    if len(same) == 1 or len({seeds_of(results) for _, results, _ in same}) < len(same):
        alone = len(same) == 1
        return [p if alone else replace(p, label=f"{p.label} ({f.name})") for f, _, p in same]
    return [_mean([results for _, results, _ in same], same[0][2].method)]


def _mean(runs: Sequence[Results], method: str) -> Point:
    """A method's point over runs of several seeds; intervals as in every table."""
    each = [next(p for p in points(results) if p.method == method) for results in runs]
    measured = over([accuracies(method)(results) for results in runs])
    ci95 = None if measured.ci95 is None else measured.ci95 / 100
    return replace(
        each[0],
        bytes=fmean(point.bytes for point in each),
        accuracy=(measured.mean or 0.0) / 100,
        ci95=ci95,
    )


def of_arms(gathered: Gathered) -> dict[tuple[str, str], Point]:
    """By arm and method, over the arm's seeds. Arms that measured a method alike have one point
    (what scratch does does not hang on the stem); those that did not are told by their arms."""
    made = {
        (arm.label, name): _mean(runs, name)
        for arm in gathered.arms
        for runs in [[run for run in arm.runs if answered(run)]]
        if runs
        for name in method_names(runs[0])
    }
    found = {}
    for (arm, name), point in made.items():
        same = [other for other in made.values() if other.label == point.label]
        alike = not any(_unlike(point, other) for other in same)
        found[arm, name] = same[0] if alike else replace(point, label=f"{point.label} ({arm})")
    return found


def _unlike(one: Point, other: Point) -> bool:
    """Bytes may differ a little: the settings in a message are longer for one run than another."""
    return one.accuracy != other.accuracy or abs(one.bytes - other.bytes) > 1000


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
