"""Accuracy against the bytes that a client receives: depths and number formats of the learngene.

Not in the paper. Seeds are averaged. Opponents that were run in other experiments come on the same
figure with ``python -m reports frontier``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from learngene.utils.files import write_csv
from reports.experiments.base import Experiment, Row, gain_row, row
from reports.figures.pareto import LITTLE, Point, cost_accuracy_points, front, save_points
from reports.results import MAIN, REFERENCE
from reports.runs import GatherError, check_equal, class_seed, origin_of, read_runs, seeds_of
from reports.schema import Results
from reports.summary import answered
from reports.variants import RunGroup, Variant, check_comparable

# What the runs of one picture may differ in, besides seeds and circumstances.
FREE = (
    *("learngene.layers", "learngene.depth", "learngene.joined", "learngene.precision"),
    *("individual.stem", "individual.depth", "individual.bytes", "payload_precision"),
    *("methods", "experiment"),
)


def rows(group: RunGroup) -> list[Row]:
    """For every point of the figure, by its name there: accuracy, a learngene's gain, what a client
    received, and whether it is on the Pareto front."""
    table: list[Row] = []
    of_methods = points_of(group)
    best, shown = front(list(dict.fromkeys(of_methods.values()))), set()
    for variant in group.variants:
        for name in variant.methods:
            point = of_methods.get((variant.label, name))
            if point is None or point in shown:  # nobody answered; scratch, which every run has
                continue
            shown.add(point)
            label = point.label
            mean = variant.accuracy(name)
            table.append(row(variant, label, "%", mean, hide_settings=["*"]))
            if name == MAIN and REFERENCE in variant.methods:
                table.append(gain_row(variant, f"gain over scratch, {label}", ["*"]))
            received = variant.mean(variant.final_by_client(name).bytes / 1000)
            note = "on the Pareto front" if point in best else ""
            table.append(
                row(variant, f"received, {label}", "KB", received, note=note, hide_settings=["*"])
            )
    return table


def figure(group: RunGroup, path: Path) -> Path:
    """Every variant's methods in one picture (scratch once)."""
    return save_points(list(dict.fromkeys(points_of(group).values())), path)


def points_of(group: RunGroup) -> dict[tuple[str, str], Point]:
    """By variant and method, over the variant's seeds. Variants that measured a method alike have
    one point (scratch's does not hang on the learngene); those that did not are told by their
    labels."""
    measured = {
        (variant.label, name): _mean_point(runs, name)
        for variant in group.variants
        if (runs := [run for run in variant.runs if answered(run)])
        for name in variant.methods
    }
    named = {}
    for (label, name), point in measured.items():
        same = [other for other in measured.values() if other.label == point.label]
        alike = not any(_unlike(point, other) for other in same)
        named[label, name] = same[0] if alike else replace(point, label=f"{point.label} ({label})")
    return named


def points_in(folders: Sequence[Path]) -> list[Point]:
    """The points of all runs in the folders. Seeds are averaged; what several runs measured alike
    is one point; what they measured differently under one name and one seed stays apart, named
    after the runs.

    Raises:
        GatherError: the runs differ in something else than layers, precision and methods, not all
            methods were run on the same clients, or nobody answered in any.
    """
    runs = read_runs(folders)
    check_equal("data, name", {folder: run["data"]["name"] for folder, run in runs})
    for seed in {class_seed(run) for _, run in runs}:
        same_images = [(folder, run) for folder, run in runs if class_seed(run) == seed]
        check_equal("data, sha256", {folder: run["data"]["sha256"] for folder, run in same_images})
    check_comparable(runs, FREE)
    by_label: dict[str, list[tuple[Path, Results, Point]]] = {}
    for folder, results in runs:
        for point in cost_accuracy_points(results):
            same = by_label.setdefault(point.label, [])
            if all(_unlike(point, p) or seeds_of(results) != seeds_of(r) for _, r, p in same):
                same.append((folder, results, point))
    if not by_label:
        raise GatherError("no client answered in these runs")
    tasks = {n: sorted({origin_of(r)[1] for _, r, _ in same}) for n, same in by_label.items()}
    check_equal("the list of shard seeds", tasks)
    return [point for same in by_label.values() for point in _merge(same)]


def write_frontier(folders: Sequence[Path], out: Path) -> list[Point]:
    """Write ``frontier.png`` and ``frontier.csv``; returns the points of the front."""
    measured = points_in(folders)
    save_points(measured, out / "frontier.png")
    best = front(measured)
    lines: list[tuple[object, ...]] = [("label", "method", "bytes", "accuracy", "ci95", "front")]
    for p in measured:
        lines.append((p.label, p.method, round(p.bytes), p.accuracy, p.ci95, int(p in best)))
    write_csv(out / "frontier.csv", lines)
    return best


def _merge(same: Sequence[tuple[Path, Results, Point]]) -> list[Point]:
    """One point, the mean over seeds; several where two runs of one seed contradict each other."""
    if len(same) == 1:
        return [same[0][2]]
    if len({seeds_of(results) for _, results, _ in same}) < len(same):
        return [replace(p, label=f"{p.label} ({folder.name})") for folder, _, p in same]
    return [_mean_point([results for _, results, _ in same], same[0][2].method)]


def _mean_point(runs: Sequence[Results], method: str) -> Point:
    """A method's point over runs of several seeds; intervals as in every table."""
    seeds = [p for run in runs for p in cost_accuracy_points(run) if p.method == method]
    mean = Variant("", {}, tuple(runs)).accuracy(method)
    return replace(
        seeds[0],
        bytes=fmean(point.bytes for point in seeds),
        accuracy=(mean.mean or 0.0) / 100,
        ci95=None if mean.ci95 is None else mean.ci95 / 100,
    )


def _unlike(one: Point, other: Point) -> bool:
    """Bytes may differ a little: the settings in a message are longer for one run than another."""
    return one.accuracy != other.accuracy or abs(one.bytes - other.bytes) > LITTLE


EXPERIMENT = Experiment("frontier", rows=rows, figure=figure)
