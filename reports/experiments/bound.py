"""Theorem 1 beside measured gaps: Eq. 10's form fitted to runs that differ in ``shots`` alone.

``reports.experiments.bound_fit`` fits and draws. Here runs of a comparison become what it takes: one fit for each
group of arms and each seed. Below three sample sizes there is none: two constants pass through two
sizes exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from learngene.errors import InputError
from reports.experiments.base import Row, any_rows, row
from reports.experiments.bound_figure import draw as draw_fit
from reports.experiments.bound_fit import LEAST_SIZES, Run, fit, together
from reports.figures.style import NoDataError
from reports.format import rounded
from reports.results import REFERENCE
from reports.schema import Results
from reports.summary import answered
from reports.units import Measured, over, over_runs, seeds_of
from reports.variants import Gathered, groups

Found = Mapping[str, Any]  # as ``reports.experiments.bound_fit.bound`` makes it
TOLD = ["shots"]


def bound(gathered: Gathered) -> list[Row]:
    """The rows of any run; then for each method the constants, what they explain, and the gap at
    every sample size with what the fit leaves."""
    found = any_rows(gathered)
    for group in groups(gathered, "shots"):
        arm = group.arms[0]
        try:
            fits = fits_of(group)
        except InputError as reason:
            none = Measured(None, None, "0 runs")
            found.append(row(arm, "c1", "points", none, note=f"no fit: {reason}", told=TOLD))
            continue
        for name in dict.fromkeys(name for each in fits for name in each["methods"]):
            for quantity, unit, measured, note, size in _of_method(name, fits):
                arms = [a for a in group.arms if size is None or size in map(_size, a.runs)]
                found.append(row(arm, quantity, unit, measured, note=note, told=TOLD, arms=arms))
    return found


def _of_method(
    name: str, fits: Sequence[Found]
) -> list[tuple[str, str, Measured, str, float | None]]:
    """Quantity, unit, what was measured, note, and the sample size where it is of one; nothing for
    what no seed's fit has."""
    there = [each for each in fits if name in each["methods"]]
    ours = [each["methods"][name] for each in there]
    pairs = [(each["run"], f) for each, f in zip(there, ours, strict=True)]
    constants = (
        ("c1, {}", "points", [(r, 100 * f["c1"]) for r, f in pairs], _intervals(ours, "c1")),
        ("c2 / (2 σ t), {}", "points · √images", [(r, 100 * f["slope"]) for r, f in pairs],
         _intervals(ours, "slope")),
        ("c2 for σ = 1, {}", "√images", [(r, f["c2"]) for r, f in pairs if f["c2"] is not None],
         f"t = {there[0]['t']} tasks"),
        ("R² of the means, {}", "share",
         [(r, f["r2_means"]) for r, f in pairs if f["r2_means"] is not None], "over sample sizes"),
    )  # fmt: skip
    made = [(quantity.format(name), unit, over_runs(values), note, None)
            for quantity, unit, values, note in constants if values]  # fmt: skip
    for size in sorted({size for each in there for size in each["sizes"]}):
        gaps, rest = [], []
        for each, f in zip(there, ours, strict=True):
            if size in each["sizes"]:
                place = each["sizes"].index(size)
                rest.append(100 * f["residuals"][place])
                clients = zip(each["units"], f["gaps"], strict=True)
                gaps.append({unit: 100 * of[place] for unit, of in clients})
        residual = rounded(sum(rest) / len(rest), sign=True)
        note = f"test less training error; residual {residual} of the fit"
        quantity = f"gap at {size:g} training images, {name}"
        made.append((quantity, "points", over(gaps), note, size))
    return made


def _intervals(ours: Sequence[Found], name: str) -> str:
    """The bootstrap's intervals, a seed each; they need not lie evenly around the value."""
    pairs = [each[f"{name}_interval"] for each in ours]
    said = [f"{rounded(100 * low)} to {rounded(100 * high)}" for low, high in filter(None, pairs)]
    return f"95 % over clients: {'; '.join(said)}" if said else "one client: no interval"


def figure(gathered: Gathered, path: Path) -> Path:
    """Gaps, fit and residuals of the first group and its first seed; rows tell the others.

    Raises:
        NoDataError: fewer than three sample sizes, or runs that cannot be fitted together.
    """
    try:
        found = next((each for group in groups(gathered, "shots") for each in fits_of(group)), None)
    except InputError as reason:
        raise NoDataError(str(reason)) from reason
    if found is None:
        raise NoDataError(
            f"a fit of Eq. 10 needs runs of {LEAST_SIZES} sample sizes whose clients report "
            "train_accuracy"
        )
    return draw_fit(found, path)


def fits_of(group: Gathered) -> list[dict[str, Any]]:
    """A fit a seed, in their order, of arms that differ in ``shots`` alone.

    Raises:
        InputError: runs of one seed that do not go together.
    """
    by_seed: dict[tuple[int, int], list[Results]] = {}
    for arm in group.arms:
        for run in arm.runs:
            by_seed.setdefault(seeds_of(run), []).append(run)
    found = []
    for seeds, of in sorted(by_seed.items(), key=lambda pair: pair[0]):
        runs = [run for run in map(_run, of) if run.gaps]
        if len(runs) >= LEAST_SIZES:
            found.append({"run": of[0], **_fit(runs, seeds)})
    return found


def sizes(gathered: Gathered) -> int:
    """How many numbers of shots there are."""
    return len({arm.config("shots") for arm in gathered.arms})


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


def _fit(runs: Sequence[Run], seeds: tuple[int, int]) -> dict[str, Any]:
    """What ``reports.experiments.bound_fit.bound`` says of runs in folders, and the clients as units."""
    runs, clients = together(runs)
    sizes, tasks = [run.size for run in runs], runs[0].tasks
    methods = {}
    for name in (n for n in runs[0].gaps if all(n in run.gaps for run in runs)):
        gaps = np.array([[run.gaps[name][client] for run in runs] for client in clients])
        found = fit(sizes, gaps)
        # t counts the tasks behind the learngene; from scratch there are none.
        c2 = None if tasks is None or name == REFERENCE else 2 * tasks * found.slope
        methods[name] = {**asdict(found), "c2": c2, "gaps": gaps.tolist()}
    units = [(*seeds, client) for client in clients]
    return {"t": tasks, "sizes": sizes, "units": units, "methods": methods}
