"""Theorem 1 beside measured gaps: Eq. 10's form fitted to runs that differ in ``shots`` alone.

``bound_fit`` fits. Here runs of a comparison become what it takes: one fit for each group of
variants and each seed. Below three sample sizes there is none: two constants pass through two sizes
exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator

from learngene.errors import InputError
from learngene.utils.files import write_atomically
from reports.experiments.base import Experiment, Row, client_rows, row
from reports.experiments.bound_fit import LEAST_SIZES, Run, bound, comparable, fit_methods, table
from reports.figures.measured import draw_gains
from reports.figures.style import STYLE, NoDataError, new_figure, save
from reports.format import rounded
from reports.runs import seeds_of
from reports.schema import Results
from reports.summary import answered
from reports.units import Measured, mean_over_runs, mean_over_units
from reports.variants import RunGroup

Fits = Mapping[str, Any]  # as ``bound_fit.bound`` gives it
HIDDEN = ["shots"]  # quantities tell them
STYLES = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", ":"),
          ("#CC79A7", "D", "-."))  # fmt: skip


def rows(group: RunGroup) -> list[Row]:
    """The rows of any run; then for each method the constants, what they explain, and the gap at
    every sample size with what the fit leaves."""
    found = client_rows(group)
    for part in group.split_by_others("shots"):
        first = part.variants[0]
        try:
            fits = fits_of(part)
        except InputError as reason:
            none = Measured(None, None, "0 runs")
            note = f"no fit: {reason}"
            found.append(row(first, "c1", "points", none, note=note, hide_settings=HIDDEN))
            continue
        for name in dict.fromkeys(name for each in fits for name in each["methods"]):
            of_method = [(each, each["methods"][name]) for each in fits if name in each["methods"]]
            for quantity, unit, measured, note in _constants(name, of_method):
                found.append(row(first, quantity, unit, measured, note=note, hide_settings=HIDDEN,
                                 variants=part.variants))  # fmt: skip
            for size in sorted({size for each, _ in of_method for size in each["sizes"]}):
                measured, note = _gap(size, of_method)
                found.append(row(
                    first, f"gap at {size:g} training images, {name}", "points", measured,
                    note=note, hide_settings=HIDDEN,
                    variants=[v for v in part.variants if size in map(_size, v.runs)],
                ))  # fmt: skip
    return found


def _constants(
    name: str, fits: Sequence[tuple[Fits, Fits]]
) -> list[tuple[str, str, Measured, str]]:
    """Quantity, unit, mean and note of a method's constants; nothing for what no seed's fit has."""
    methods = [method for _, method in fits]
    constants = (
        ("c1, {}", "points", "c1", 100, _intervals(methods, "c1")),
        ("c2 / (2 σ t), {}", "points · √images", "slope", 100, _intervals(methods, "slope")),
        ("c2 for σ = 1, {}", "√images", "c2", 1, f"t = {fits[0][0]['t']} tasks"),
        ("R² of the means, {}", "share", "r2_means", 1, "over sample sizes"),
    )
    found = []
    for quantity, unit, key, scale, note in constants:
        known = [(each["run"], scale * m[key]) for each, m in fits if m[key] is not None]
        if known:
            found.append((quantity.format(name), unit, mean_over_runs(known), note))
    return found


def _gap(size: float, fits: Sequence[tuple[Fits, Fits]]) -> tuple[Measured, str]:
    """The mean gap of a method at a sample size, and the residual of the fit in words."""
    gaps: dict[tuple[int, int, int], float] = {}
    residuals = []
    for each, method in fits:
        if size in each["sizes"]:
            place = each["sizes"].index(size)
            residuals.append(100 * method["residuals"][place])
            for unit, by_size in zip(each["units"], method["gaps"], strict=True):
                gaps[unit] = 100 * by_size[place]
    residual = rounded(sum(residuals) / len(residuals), sign=True)
    note = f"test less training error; residual {residual} of the fit"
    return mean_over_units(pd.Series(gaps)), note


def _intervals(fits: Sequence[Fits], name: str) -> str:
    """The bootstrap's intervals, a seed each; they need not lie evenly around the value."""
    pairs = filter(None, (each[f"{name}_interval"] for each in fits))
    shown = [f"{rounded(100 * low)} to {rounded(100 * high)}" for low, high in pairs]
    return f"95 % over clients: {'; '.join(shown)}" if shown else "one client: no interval"


def figure(group: RunGroup, path: Path) -> Path:
    """Gaps, fit and residuals of the first group and its first seed; rows tell the others. Too few
    sizes for a fit show what the runs gain.

    Raises:
        NoDataError: runs that cannot be fitted together.
    """
    if len({variant.config("shots") for variant in group.variants}) < LEAST_SIZES:
        return draw_gains(group, path)
    try:
        fits = next((f for part in group.split_by_others("shots") for f in fits_of(part)), None)
    except InputError as reason:
        raise NoDataError(str(reason)) from reason
    if fits is None:
        raise NoDataError(
            f"a fit of Eq. 10 needs runs of {LEAST_SIZES} sample sizes whose clients report "
            "train_accuracy"
        )
    return draw_fit(fits, path)


def fits_of(group: RunGroup) -> list[dict[str, Any]]:
    """A fit a seed, in their order, of variants that differ in ``shots`` alone.

    Raises:
        InputError: runs of one seed that do not go together.
    """
    by_seed: dict[tuple[int, int], list[Results]] = {}
    for results in group.runs:
        by_seed.setdefault(seeds_of(results), []).append(results)
    fits = []
    for seeds, same in sorted(by_seed.items(), key=lambda pair: pair[0]):
        runs = [run for run in map(_run, same) if run.gaps]
        if len(runs) >= LEAST_SIZES:
            runs, clients = comparable(runs)
            fits.append({
                "run": same[0],
                "t": runs[0].tasks,
                "sizes": [run.size for run in runs],
                "units": [(*seeds, client) for client in clients],
                "methods": fit_methods(runs, clients),
            })  # fmt: skip
    return fits


def _run(results: Results) -> Run:
    """What Eq. 10 needs of a run; without gaps where clients did not report ``train_accuracy``."""
    clients = answered(results)
    gaps: dict[str, dict[int, float]] = {}
    for client in clients:
        for name, method in client["methods"].items():
            if method.get("train_accuracy") is not None:
                gap = method["train_accuracy"] - method["accuracy"]  # of errors: the ones cancel
                gaps.setdefault(name, {})[client["id"]] = gap
    return Run(
        path=Path(f"shots={results['run']['config']['shots']}"),
        size=_size(results),
        tasks=results["collective"] and results["collective"]["tasks"],
        gaps=gaps,
        # All else is equal within a group, by their configurations.
        settings={f"{name}.sha256": results[name]["sha256"] for name in ("data", "learngene")},
    )


def _size(results: Results) -> float:
    """Mean number of a client's training images."""
    clients = answered(results)
    return float(np.mean([client["train_images"] for client in clients])) if clients else 0.0


def draw_fit(fits: Fits, path: Path) -> Path:
    """Gaps with the fitted form of Eq. 10, residuals below."""
    sizes = np.array(fits["sizes"], float)
    figure = new_figure(5.4)
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    fine = np.geomspace(sizes[0], sizes[-1], 100)
    for number, (name, fitted) in enumerate(fits["methods"].items()):
        colour, marker, dashes = STYLES[number % len(STYLES)]
        gaps = 100 * np.array(fitted["gaps"])  # (clients, sizes)
        aside = 1 + 0.05 * (number - (len(fits["methods"]) - 1) / 2)  # dots must not coincide
        above.plot(
            np.tile(sizes * aside, len(gaps)), gaps.ravel(),
            ls="", marker=".", ms=4, color=colour, alpha=0.25,
        )  # fmt: skip
        above.plot(sizes * aside, gaps.mean(0), ls="", marker=marker, color=colour,
                   label=f"{name}, mean of {len(gaps)} clients")  # fmt: skip
        line = 100 * (fitted["c1"] + fitted["slope"] / np.sqrt(fine))
        label = f"fit: {100 * fitted['c1']:.1f} + {100 * fitted['slope']:.0f} / √m̄"
        above.plot(fine, line, color=colour, ls=dashes, lw=1.5, label=label)
        below.plot(sizes, 100 * np.array(fitted["residuals"]), color=colour, marker=marker,
                   ls=dashes, lw=1)  # fmt: skip
    below.axhline(0, color="#6B6B6B", lw=1)
    below.set_xscale("log")
    below.xaxis.set_minor_locator(NullLocator())
    below.set_xticks(sizes, [f"{size:g}" for size in sizes])
    below.set(xlabel="m̄, training images of a client, log scale", ylabel="residual")
    above.set(ylabel="test error − training error (points)")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    for axes in (above, below):
        axes.grid(color="#E4E4E4")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


def write_bound(folders: Sequence[Path], out: Path, seed: int = 0) -> str:
    """Write ``bound.json`` and ``bound.png`` of runs in folders; returns the table as text.

    Raises:
        InputError: the runs cannot be used.
    """
    fits = bound(folders, seed)
    text = json.dumps(fits, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(out / "bound.json", text.encode())
    with matplotlib.rc_context(STYLE):
        draw_fit(fits, out / "bound.png")
    return table(fits)


EXPERIMENT = Experiment("bound", rows=rows, figure=figure)
