"""Accuracy over a sweep of ``shots`` or ``ways``: one figure and one table of several runs.

    python sim.py -m shots=1,5,10,20,50 methods=[learngene,scratch,protonet]
    python -m reports.experiments.sweep multirun/DATE/TIME -o sweep

writes ``sweep.png`` and ``sweep.csv``.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from learngene.utils.files import write_atomically
from reports.figures.style import legend_above, method_style, new_figure, save, styled
from reports.runs import GatherError, OutputError, config, find_runs, must_agree, writing
from reports.schema import Results
from reports.summary import answered, method_names, over
from reports.variants import must_share

SWEPT = ("shots", "ways")
BANDS = 4  # methods up to which each has its band; more would hide each other and have bars
COLUMNS = ("shots", "ways", "method", "mean", "std", "ci95", "n", "run")


@dataclass(frozen=True)
class Row:
    """A method's accuracy in one run of the sweep, fractions."""

    shots: int
    ways: int
    method: str
    mean: float | None
    std: float | None
    ci95: float | None
    n: int
    run: str


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep, by rising ``name``."""

    name: str  # shots | ways
    rows: tuple[Row, ...]
    unit: str  # what intervals are over

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(row.method for row in self.rows))

    @property
    def values(self) -> list[int]:
        return sorted({getattr(row, self.name) for row in self.rows})


def gather(folders: Sequence[Path]) -> Sweep:
    """The sweep that the runs in ``folders`` make.

    Raises:
        GatherError: there are fewer than two runs, they differ in both shots and ways, two have
            the same, or they differ in something else (methods may: a line is of the runs that
            have its method).
    """
    runs = find_runs(folders)
    if len(runs) < 2:
        raise GatherError(f"{len(runs)} run: a sweep needs two or more")
    must_agree(runs, "data, sha256", lambda results: results["data"]["sha256"])
    must_agree(runs, "seed", lambda results: results["run"]["seed"])
    must_agree(runs, "shard seed", lambda results: results["run"].get("shard_seed"))
    must_share(runs, (*SWEPT, "methods", "experiment"))
    places = [tuple(_setting(results, name) for name in SWEPT) for _, results in runs]
    varied = [name for i, name in enumerate(SWEPT) if len({place[i] for place in places}) > 1]
    if len(varied) != 1:
        why = "shots and ways both change" if varied else "neither shots nor ways changes"
        raise GatherError(f"{why} over these {len(runs)} runs: one of them must")
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise GatherError(f"two runs have shots={twice[0]}, ways={twice[1]}")
    (name,) = varied
    rows = [
        Row(*place, method, *(summary[f] for f in ("mean", "std", "ci95", "n")), str(folder))
        for place, (folder, results) in sorted(zip(places, runs, strict=True), key=lambda e: e[0])
        for method in method_names(results)
        for summary in [results["summary"][method]]
    ]
    return Sweep(name, tuple(rows), over(runs[0][1]))


def _setting(results: Results, name: str) -> int:
    """Shots or ways of a run: what was set, or what the clients that answered had."""
    asked = config(results, name)
    if asked is not None:
        return int(asked)
    clients = answered(results)
    if not clients:
        raise GatherError("a run has neither its settings nor a client that answered")
    return int(clients[0]["shots"] if name == "shots" else len(clients[0]["classes"]))


def table(sweep: Sweep) -> str:
    """The sweep as CSV: a row a run and method, accuracies as fractions."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(row, name) for name in COLUMNS] for row in sweep.rows)
    return text.getvalue()


def draw(axes: Axes, sweep: Sweep) -> None:
    """A line a method, with its 95 % interval: a band, or bars where methods are many."""
    style = method_style(sweep.methods)
    for method in sweep.methods:
        rows = [row for row in sweep.rows if row.method == method and row.mean is not None]
        x = [getattr(row, sweep.name) for row in rows]
        mean = [100 * float(row.mean or 0) for row in rows]
        half = [100 * (row.ci95 or 0.0) for row in rows]
        axes.plot(x, mean, lw=1.5, ms=5, label=method, **style[method])
        if len(sweep.methods) <= BANDS:
            low, high = (
                [m + side * h for m, h in zip(mean, half, strict=True)] for side in (-1, 1)
            )
            axes.fill_between(x, low, high, color=style[method]["color"], alpha=0.15, lw=0)
        else:
            axes.errorbar(x, mean, yerr=half, lw=0, elinewidth=0.8, capsize=2,
                          color=style[method]["color"])  # fmt: skip
    if sweep.name == "shots":
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sweep.values))
    axes.xaxis.set_major_formatter(FixedFormatter([str(value) for value in sweep.values]))
    axes.xaxis.set_minor_locator(NullLocator())
    labels = {
        "shots": "shots: images of a class to learn from, log scale",
        "ways": "ways: classes of a client",
    }
    axes.set(xlabel=labels[sweep.name], ylabel="test accuracy (%)")


@styled
def _figure(results: Results, path: Path) -> Path:
    figure = new_figure(4.5)
    axes = figure.add_subplot()
    draw(axes, results["sweep"])
    legend_above(figure, axes)
    return save(figure, path)


def main(arguments: list[str]) -> int:
    """Draw a sweep; the exit code is 2 where the runs make none."""
    parser = argparse.ArgumentParser(prog="python -m reports.experiments.sweep")
    parser.add_argument("folders", type=Path, nargs="+", metavar="MULTIRUN_DIR")
    parser.add_argument("-o", "--out", type=Path, default=Path("sweep"), metavar="DIR")
    asked = parser.parse_args(arguments)
    try:
        sweep = gather(asked.folders)
        path = asked.out / "sweep.csv"
        with writing(asked.out):
            print(_figure({"sweep": sweep}, asked.out / "sweep.png"))
            write_atomically(path, table(sweep).encode())
    except (GatherError, OutputError) as error:
        print(f"reports.experiments.sweep: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
