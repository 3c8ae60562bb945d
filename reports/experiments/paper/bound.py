"""Theorem 1 (Eq. 10): its form fitted to the gaps of runs that differ in ``shots`` alone.

    er(h) - êr(h) < c2 / (2 σ t √m̄) + c1                                            (Eq. 10)

The theorem leaves c1 and c2 open, so no measurement can break it; what can be looked at is its
form: does the gap between test and training error fall with the mean sample size m̄ as
c1 + slope / √m̄ with c1, slope >= 0? That line is fitted by non-negative least squares, and its
residuals are shown. σ and t do not vary between such runs: only slope = c2 / (2 σ t) can be told
from them, and c2 is given for σ = 1 and t tasks of the collective. The fit is a description of
means over clients, neither a bound nor a proof.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import NullLocator
from numpy.typing import NDArray
from scipy.optimize import nnls

from learngene.seeding import generator
from learngene.utils.files import write_atomically
from reports.experiments.base import Experiment, Row, client_rows, row
from reports.figures import style
from reports.figures.measured import draw_gains
from reports.format import format_number
from reports.results import REFERENCE
from reports.runs import GatherError, check_equal, origin_of, read_runs, runs_table, seeds_of
from reports.schema import Results
from reports.summary import answered, method_names
from reports.units import Measured, mean_over_runs, mean_over_units
from reports.variants import RunGroup, Variant, check_comparable

Fits = Mapping[str, Any]  # as ``fit_runs`` gives it
MethodFits = Sequence[tuple[Results, Fits, Fits]]  # a seed's first run, its fits, one method's
LEAST_SIZES = 3  # two constants pass through two sizes exactly: nothing would be left to see
RESAMPLES = 2000  # of the bootstrap
FREE = ("shots", "experiment")  # settings in which the runs of one fit may differ
HIDDEN = ["shots"]  # quantities tell them
MARKS = (("o", "-"), ("s", "--"), ("^", ":"), ("D", "-."))


@dataclass(frozen=True)
class Fit:
    """c1 + slope / √m̄ fitted to gaps; errors are fractions, S sizes in rising order."""

    c1: float
    slope: float  # c2 / (2 σ t)
    c1_interval: tuple[float, float] | None  # 95 %, bootstrap over clients; None for one client
    slope_interval: tuple[float, float] | None
    mean_gaps: list[float]  # (S,) over clients
    residuals: list[float]  # (S,) mean gap less fit
    r2_means: float | None  # of the S means; None where they are all equal
    r2_clients: float | None  # of every client's gaps: what the clients' spread leaves
    highest: float  # largest distance of any client's gap above the fit: c1 + this lies over all


def fit(sizes: Sequence[float], gaps: NDArray[np.float64], seed: int = 0) -> Fit:
    """Fit Eq. 10's form.

    Every client has a gap at every size, so least squares over clients is least squares over
    their means.

    Args:
        sizes: (S,) mean sample sizes m̄, rising.
        gaps: (n, S) test error less training error of n clients.
        seed: of the bootstrap; clients are drawn, each with its gaps at all sizes.

    Raises:
        GatherError: fewer than three sizes.
    """
    if len(set(sizes)) < LEAST_SIZES:
        raise GatherError(
            f"{len(sizes)} runs hold {len(set(sizes))} sample sizes, a fit of two constants needs "
            f"{LEAST_SIZES}: name runs of more values of shots"
        )
    design = np.stack([np.ones(len(sizes)), 1 / np.sqrt(sizes)], axis=1)
    mean = gaps.mean(0)
    (c1, slope), _ = nnls(design, mean)
    fitted = design @ (c1, slope)
    intervals: list[tuple[float, float] | None] = [None, None]
    if len(gaps) > 1:
        picks = generator(seed, "bound").integers(len(gaps), size=(RESAMPLES, len(gaps)))
        resampled = np.array([nnls(design, gaps[pick].mean(0))[0] for pick in picks])
        low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
        intervals = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return Fit(
        c1=float(c1),
        slope=float(slope),
        c1_interval=intervals[0],
        slope_interval=intervals[1],
        mean_gaps=mean.tolist(),
        residuals=(mean - fitted).tolist(),
        r2_means=_r2(mean, fitted),
        r2_clients=_r2(gaps, fitted),
        highest=float((gaps - fitted).max()),
    )


def _r2(measured: NDArray[np.float64], fitted: NDArray[np.float64]) -> float | None:
    """Share of the variance that the fit explains; below 0 where the mean alone does better."""
    total = float(((measured - measured.mean()) ** 2).sum())
    return 1 - float(((measured - fitted) ** 2).sum()) / total if total > 1e-12 else None


def fit_runs(runs: Sequence[tuple[Path, Results]], seed: int = 0) -> dict[str, Any]:
    """Everything that ``bound.json`` holds, of runs that differ in ``shots`` alone; over the
    clients that answered in all of them.

    Raises:
        GatherError: too few sample sizes, or two runs of one; other images or another learngene;
            answers without ``train_accuracy``; no client answered in all runs.
    """
    for name in ("data", "learngene"):
        hashes = {folder: (run[name] or {}).get("sha256") for folder, run in runs}
        check_equal(f"{name}.sha256", hashes)
    runs = sorted(runs, key=lambda pair: mean_size(pair[1]))
    sizes = [mean_size(run) for _, run in runs]
    for (first, one), (second, other) in pairwise(runs):
        if mean_size(one) == mean_size(other):
            raise GatherError(
                f"{second}: {mean_size(one):g} training images a client, as in {first}. Name one "
                "run of each sample size"
            )
    frames = [_gaps(folder, run) for folder, run in runs]
    methods = [name for name in frames[0] if all(name in frame for frame in frames)]
    clients = sorted(set.intersection(*(set(frame.index) for frame in frames)))
    if not clients:
        raise GatherError("no client answered in all runs: look into their results.json for errors")
    tasks = (runs[0][1]["collective"] or {}).get("tasks")
    fits = {}
    for name in methods:
        gaps = np.stack([frame.loc[clients, name] for frame in frames], axis=1)
        fitted = fit(sizes, gaps, seed)
        # t counts the tasks behind the learngene; from scratch there are none.
        c2 = None if tasks is None or name == REFERENCE else 2 * tasks * fitted.slope
        fits[name] = {**asdict(fitted), "c2": c2, "gaps": gaps.tolist()}
    return {
        "schema": 1,
        "form": "er - êr = c1 + slope / sqrt(m), slope = c2 / (2 sigma t), c2 for sigma = 1",
        "t": tasks,
        "seed": seed,
        "resamples": RESAMPLES,
        "runs": [str(folder) for folder, _ in runs],
        "sizes": sizes,
        "clients": clients,
        "methods": fits,
    }


def mean_size(run: Results) -> float:
    """m̄: training images of a client that answered, mean over clients; 0 where none did."""
    clients = answered(run)
    return float(np.mean([client["train_images"] for client in clients])) if clients else 0.0


def _gaps(folder: Path, run: Results) -> pd.DataFrame:
    """Test error less training error as fractions: a client a row, a method a column."""
    if not mean_size(run):
        raise GatherError(f"{folder}: no client with training images answered. Leave it out")
    table = runs_table([run]).query("last")
    unknown = table[table.train_accuracy.isna()]
    if len(unknown):
        who = "client {client}, {method}".format(**unknown.iloc[0])
        raise GatherError(f"{folder}: train_accuracy is None ({who}). Run it again")
    # Of errors: the ones cancel.
    gaps = table.assign(gap=table.train_accuracy - table.accuracy)
    return gaps.pivot(index="client", columns="method", values="gap")[method_names(run)]


def fits_of(group: RunGroup) -> list[tuple[Results, dict[str, Any]]]:
    """The first run and the fit of each seed, in their order, of variants that differ in ``shots``
    alone; without runs that nobody answered and seeds that have too few.

    Raises:
        GatherError: runs of one seed that do not go together.
    """
    by_seed: dict[tuple[int, int], list[tuple[Path, Results]]] = {}
    for run in filter(answered, group.runs):
        shots = Path(f"shots={run['run']['config']['shots']}")
        by_seed.setdefault(seeds_of(run), []).append((shots, run))
    return [
        (runs[0][1], fit_runs(runs))
        for _, runs in sorted(by_seed.items())
        if len(runs) >= LEAST_SIZES
    ]


def rows(group: RunGroup) -> list[Row]:
    """The rows of any run; then for each method the constants, what they explain, and the gap at
    every sample size with what the fit leaves."""
    table = client_rows(group)
    for part in group.split_by_others("shots"):
        try:
            fits = fits_of(part)
        except GatherError as reason:
            none, note = Measured(None, None, "0 runs"), f"no fit: {reason}"
            first = part.variants[0]
            table.append(row(first, "c1", "points", none, note=note, hide_settings=HIDDEN))
            continue
        for name in dict.fromkeys(name for _, fit in fits for name in fit["methods"]):
            method_fits = [(r, f, f["methods"][name]) for r, f in fits if name in f["methods"]]
            table += _constants(part.variants, name, method_fits)
            table += _gap_rows(part.variants, name, method_fits)
    return table


def _constants(variants: Sequence[Variant], name: str, fits: MethodFits) -> list[Row]:
    """A method's constants; no row for one that no seed's fit has."""
    new_row = partial(row, variants[0], hide_settings=HIDDEN, variants=variants)
    table = []
    for quantity, unit, key, scale, note in (
        ("c1, {}", "points", "c1", 100, _intervals(fits, "c1")),
        ("c2 / (2 σ t), {}", "points · √images", "slope", 100, _intervals(fits, "slope")),
        ("c2 for σ = 1, {}", "√images", "c2", 1, f"t = {fits[0][1]['t']} tasks"),
        ("R² of the means, {}", "share", "r2_means", 1, "over sample sizes"),
    ):
        known = [(run, scale * method[key]) for run, _, method in fits if method[key] is not None]
        if known:
            mean = mean_over_runs(known)
            table.append(new_row(quantity.format(name), unit, mean, note=note))
    return table


def _gap_rows(variants: Sequence[Variant], name: str, fits: MethodFits) -> list[Row]:
    """The mean gap of a method at every sample size, with the residual of the fit."""
    gaps = pd.concat(  # (seed, tasks, client) x sizes
        {
            origin_of(run): pd.DataFrame(method["gaps"], fit["clients"], fit["sizes"])
            for run, fit, method in fits
        }
    )
    residuals = pd.DataFrame(
        dict(zip(fit["sizes"], method["residuals"], strict=True)) for _, fit, method in fits
    ).mean()
    table = []
    for size in sorted(gaps):
        residual = format_number(100 * residuals[size], sign=True)
        note = f"test less training error; residual {residual} of the fit"
        same = [variant for variant in variants if size in map(mean_size, variant.runs)]
        new_row = partial(row, same[0], hide_settings=HIDDEN, variants=same, note=note)
        mean = mean_over_units(100 * gaps[size])
        table.append(new_row(f"gap at {size:g} training images, {name}", "points", mean))
    return table


def _intervals(fits: MethodFits, name: str) -> str:
    """The bootstrap's intervals, a seed each; they need not lie evenly around the value."""
    pairs = filter(None, (method[f"{name}_interval"] for _, _, method in fits))
    shown = [f"{format_number(100 * low)} to {format_number(100 * high)}" for low, high in pairs]
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
        for part in group.split_by_others("shots"):
            for _, fits in fits_of(part):
                return draw_fit(fits, path)
    except GatherError as reason:
        raise style.NoDataError(str(reason)) from reason
    raise style.NoDataError(f"a fit of Eq. 10 needs runs of {LEAST_SIZES} sample sizes of one seed")


@style.styled
def draw_fit(fits: Fits, path: Path) -> Path:
    """Gaps with the fitted form of Eq. 10, residuals below."""
    sizes = np.array(fits["sizes"], float)
    canvas = style.new_figure(5.4)
    above, below = canvas.subplots(2, sharex=True, height_ratios=(3, 1))
    fine = np.geomspace(sizes[0], sizes[-1], 100)
    for number, (name, fitted) in enumerate(fits["methods"].items()):
        colour = style.LINE_COLOURS[number % len(style.LINE_COLOURS)]
        marker, dashes = MARKS[number % len(MARKS)]
        gaps = 100 * np.array(fitted["gaps"])  # (clients, sizes)
        x = sizes * (1 + 0.05 * (number - (len(fits["methods"]) - 1) / 2))  # dots must not coincide
        dots = {"ls": "", "color": colour}
        above.plot(np.tile(x, len(gaps)), gaps.ravel(), marker=".", ms=4, alpha=0.25, **dots)
        label = f"{name}, mean of {len(gaps)} clients"
        above.plot(x, gaps.mean(0), marker=marker, label=label, **dots)
        line = 100 * (fitted["c1"] + fitted["slope"] / np.sqrt(fine))
        label = f"fit: {100 * fitted['c1']:.1f} + {100 * fitted['slope']:.0f} / √m̄"
        above.plot(fine, line, color=colour, ls=dashes, lw=1.5, label=label)
        residuals = 100 * np.array(fitted["residuals"])
        below.plot(sizes, residuals, color=colour, marker=marker, ls=dashes, lw=1)
    below.axhline(0, color=style.GREY, lw=1)
    below.set_xscale("log")
    below.xaxis.set_minor_locator(NullLocator())
    below.set_xticks(sizes, [f"{size:g}" for size in sizes])
    below.set(xlabel="m̄, training images of a client, log scale", ylabel="residual")
    above.set(ylabel="test error − training error (points)")
    canvas.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    return style.save(canvas, path)


def write_bound(folders: Sequence[Path], out: Path, seed: int = 0) -> str:
    """Write ``bound.json`` and ``bound.png`` of runs in folders; returns the constants as text, in
    points, with their intervals over clients.

    Raises:
        GatherError: the runs cannot be used, or differ in more than ``shots``.
    """
    runs = read_runs(folders)
    check_comparable(runs, FREE)
    check_equal("(seed, shard_seed)", {folder: seeds_of(run) for folder, run in runs})
    fits = fit_runs(runs, seed)
    text = json.dumps(fits, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(out / "bound.json", text.encode())
    draw_fit(fits, out / "bound.png")
    first = runs[0][1]
    variants = (Variant("", {}, tuple(run for _, run in runs)),)
    table = [
        each
        for name, method in fits["methods"].items()
        for each in _constants(variants, name, [(first, fits, method)])
    ]
    lines = [
        f"{each.quantity:<28} {each.ours.mean:8.2f} {each.unit}; {each.note}" for each in table
    ]
    return "\n".join((*lines, "A description of means over clients; Eq. 10 leaves c1 and c2 open."))


EXPERIMENT = Experiment("bound", rows=rows, figure=figure)
