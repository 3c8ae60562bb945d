"""What methods cost and bring: points of accuracy over bytes received, of one run or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from reports.results import MAIN, REFERENCE
from reports.runs import GatherError, find_runs, must_agree
from reports.schema import Results
from reports.summary import answered, method_names
from reports.units import accuracies, over, seeds_of
from reports.variants import Gathered, must_share

# What the runs of one picture may differ in, besides seeds and circumstances.
FREE = ("individual.stem", "learngene.precision", "payload_precision", "methods", "experiment")
LITTLE = 4000  # bytes by which the settings in a message may differ between runs; 1,141 were seen


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


def points(results: Results) -> list[Point]:
    """One point a method of a run, in the run's order."""
    clients = answered(results)
    if not clients:
        return []
    made = []
    for name in method_names(results):
        summary = results["summary"][name]
        received = fmean(client["methods"][name]["bytes_down"] for client in clients)
        label, sent_as = _named(results, name)
        made.append(Point(name, label, received, summary["mean"], summary["ci95"], sent_as))
    return made


def _named(results: Results, method: str) -> tuple[str, str]:
    """The method's name; of a learngene with its stem. Where what it sends is not fp32, with that.

    And the number format by itself. Scratch is sent nothing.
    """
    config, gene = results["run"].get("config") or {}, results["learngene"] or {}
    if method == REFERENCE:
        return method, "fp32"
    if method == MAIN and gene.get("stem"):
        method = f"{method} {gene['stem']}"
        precision = config.get("learngene", {}).get("precision", "fp32")
    else:
        precision = config.get("payload_precision", "fp32")
    return method + (f" {precision}" if precision != "fp32" else ""), precision


def front(of: Sequence[Point]) -> list[Point]:
    """The points that none beats: no other is as accurate for fewer bytes, or better for as many.

    Costs within ``LITTLE`` are the same: a method's name in its message is no cost. Fewest bytes
    first; of points that are alike, one.
    """
    order = sorted(of, key=lambda each: (each.bytes, -each.accuracy))

    def beaten(at: int) -> bool:
        point = order[at]
        return any(
            (other.bytes <= point.bytes + LITTLE and other.accuracy > point.accuracy)
            or (place < at and other.accuracy == point.accuracy)
            for place, other in enumerate(order)
        )  # fmt: skip

    return [point for at, point in enumerate(order) if not beaten(at)]


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
    return one.accuracy != other.accuracy or abs(one.bytes - other.bytes) > LITTLE
