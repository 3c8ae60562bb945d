"""Fit the form of theorem 1 (Eq. 10) to measured gaps: ``python -m reports bound RUN_DIR...``

    er(h) - êr(h) < c2 / (2 σ t √m̄) + c1                                            (Eq. 10)

The theorem leaves c1 and c2 open, so no measurement can break it; what can be looked at is its
form: does the gap between test and training error fall with the mean sample size m̄ as
c1 + slope / √m̄ with c1, slope >= 0? Runs that differ in ``shots`` alone are read, that line is
fitted by non-negative least squares, and its residuals are shown. σ and t do not vary between such
runs: only slope = c2 / (2 σ t) can be told from them, and c2 is given for σ = 1 and t tasks of the
collective. The fit is a description of means over clients, neither a bound nor a proof.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from learngene.errors import InputError
from learngene.seeding import generator
from learngene.utils.untrusted import RESULTS_LIMIT, read_json
from reports.results import REFERENCE
from reports.variants import flatten

LEAST_SIZES = 3  # two constants pass through two sizes exactly: nothing would be left to see
RESAMPLES = 2000  # of the bootstrap
MAY_DIFFER = ("shots", "runtime", "cache", "resume", "report", "experiment", "scale")
AGAIN = "Run it again with this release"


@dataclass(frozen=True)
class Run:
    """What Eq. 10 needs of a run."""

    path: Path
    size: float  # m̄: training images of a client, mean over clients
    tasks: int | None  # t: of the collective; None where the run started from a saved learngene
    gaps: dict[str, dict[int, float]]  # method -> client -> test error less training error
    settings: dict[str, Any]  # what must be equal between runs, by dotted name


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

    def at(self, size: float | NDArray[np.float64]) -> Any:
        """The fitted gap at a mean sample size."""
        return self.c1 + self.slope / np.sqrt(size)


def fit(
    sizes: Sequence[float], gaps: NDArray[np.float64], seed: int = 0, resamples: int = RESAMPLES
) -> Fit:
    """Fit Eq. 10's form.

    Every client has a gap at every size, so least squares over clients is least squares over
    their means.

    Args:
        sizes: (S,) mean sample sizes m̄, rising.
        gaps: (n, S) test error less training error of n clients.
        seed: of the bootstrap; clients are drawn, each with its gaps at all sizes.

    Raises:
        InputError: fewer than three sizes.
    """
    if len(set(sizes)) < LEAST_SIZES:
        raise InputError("RUN_DIR", f"{len(sizes)} runs",
                         f"they hold {len(set(sizes))} sample sizes, a fit of two constants needs "
                         f"{LEAST_SIZES}", "Name runs of more values of shots")  # fmt: skip
    design = np.stack([np.ones(len(sizes)), 1 / np.sqrt(sizes)], axis=1)
    mean = gaps.mean(0)
    (c1, slope), _ = nnls(design, mean)
    fitted = design @ (c1, slope)
    intervals: list[tuple[float, float] | None] = [None, None]
    if len(gaps) > 1:
        picks = generator(seed, "bound").integers(len(gaps), size=(resamples, len(gaps)))
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


def read_run(folder: Path) -> Run:
    """The few fields of ``folder/results.json`` that are needed, checked.

    Raises:
        InputError: the file cannot be read, or a field is missing or not what it should be.
    """
    path = folder / "results.json"
    try:
        results = read_json(path, RESULTS_LIMIT)
    except OSError as error:
        raise InputError("RUN_DIR", folder, f"cannot read {path}: {error.strerror}",
                         "Name the folder that a run wrote") from error  # fmt: skip
    except ValueError as error:
        raise InputError("RUN_DIR", folder, f"results.json is not JSON: {error}", AGAIN) from error

    def field(section: Any, name: str, kind: type | tuple[type, ...], where: str = "") -> Any:
        value = section.get(name) if isinstance(section, dict) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            problem = f"results.json: {where}{name} is {value!r}"
            raise InputError("RUN_DIR", folder, problem, AGAIN)
        return value

    def accuracy(section: Any, name: str, where: str) -> float:
        value = field(section, name, (int, float), where)
        if not 0 <= value <= 1:
            problem = f"results.json: {where}{name} is {value!r}, not in 0..1"
            raise InputError("RUN_DIR", folder, problem, AGAIN)
        return float(value)

    sizes: list[int] = []
    gaps: dict[str, dict[int, float]] = {}
    for index, client in enumerate(field(results, "clients", list)):
        where = f"clients[{index}]."
        number = field(client, "id", int, where)
        if "error" in client:
            continue
        sizes.append(field(client, "train_images", int, where))
        for name, method in field(client, "methods", dict, where).items():
            place = f"{where}methods.{name}."
            training = accuracy(method, "train_accuracy", place)
            # Errors are 1 - accuracy, the ones cancel.
            gaps.setdefault(name, {})[number] = training - accuracy(method, "accuracy", place)
    if not sizes or min(sizes) < 1:
        raise InputError(
            "RUN_DIR", folder, "no client with training images answered", "Leave it out"
        )
    config = field(field(results, "run", dict), "config", dict, "run.")
    settings = dict(flatten({k: v for k, v in config.items() if k not in MAY_DIFFER}))
    settings["data.sha256"] = field(field(results, "data", dict), "sha256", str, "data.")
    settings["learngene.sha256"] = field(
        field(results, "learngene", dict), "sha256", str, "learngene."
    )
    collective = results.get("collective")
    tasks = None if collective is None else field(collective, "tasks", int, "collective.")
    return Run(folder, float(np.mean(sizes)), tasks, gaps, settings)


def comparable(runs: Sequence[Run]) -> tuple[list[Run], list[int]]:
    """The runs by rising sample size, and the clients that answered in all of them.

    Raises:
        InputError: two runs differ in more than ``shots``, or have the same sample size, or no
            client answered in all of them.
    """
    first = runs[0]
    for other in runs[1:]:
        for name in sorted(first.settings.keys() | other.settings.keys()):
            one, two = first.settings.get(name), other.settings.get(name)
            if one != two:
                raise InputError("RUN_DIR", other.path, f"{name} is {two}, in {first.path} {one}",
                                 "Name runs that differ in shots alone")  # fmt: skip
    ordered = sorted(runs, key=lambda run: run.size)
    for run, following in pairwise(ordered):
        if run.size == following.size:
            raise InputError("RUN_DIR", following.path,
                             f"{run.size:g} training images a client, as in {run.path}",
                             "Name one run of each sample size")  # fmt: skip
    common = set.intersection(*(set(gaps) for run in runs for gaps in run.gaps.values()))
    if not common:
        raise InputError("RUN_DIR", f"{len(runs)} runs", "no client answered in all of them",
                         "Look into their results.json for errors")  # fmt: skip
    return ordered, sorted(common)


def fit_methods(
    runs: Sequence[Run], clients: Sequence[int], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """For each method that all runs have: the fit, c2 for sigma = 1, and the gaps."""
    sizes, tasks = [run.size for run in runs], runs[0].tasks
    methods = {}
    for name in (n for n in runs[0].gaps if all(n in run.gaps for run in runs)):
        gaps = np.array([[run.gaps[name][client] for run in runs] for client in clients])
        fitted = fit(sizes, gaps, seed)
        # t counts the tasks behind the learngene; from scratch there are none.
        c2 = None if tasks is None or name == REFERENCE else 2 * tasks * fitted.slope
        methods[name] = {**asdict(fitted), "c2": c2, "gaps": gaps.tolist()}
    return methods


def bound(folders: Sequence[Path], seed: int = 0) -> dict[str, Any]:
    """Everything that ``bound.json`` holds: the runs and, for each method, fit and c2."""
    runs, clients = comparable([read_run(folder) for folder in folders])
    return {
        "schema": 1,
        "form": "er - êr = c1 + slope / sqrt(m), slope = c2 / (2 sigma t), c2 for sigma = 1",
        "t": runs[0].tasks,
        "seed": seed,
        "resamples": RESAMPLES,
        "runs": [str(run.path) for run in runs],
        "sizes": [run.size for run in runs],
        "clients": clients,
        "methods": fit_methods(runs, clients, seed),
    }


def table(bounds: Mapping[str, Any]) -> str:
    """Constants of each method, then gap, fit and residual at each sample size; in percent."""
    lines = [f"{len(bounds['clients'])} clients, gap = test error - training error, in points", ""]
    lines.append(f"{'method':<16}{'c1':>24}{'c2/(2σt)':>26}{'c2 (σ=1)':>12}{'R² of means':>13}")
    for name, fitted in bounds["methods"].items():
        c1 = _with_interval(fitted["c1"], fitted["c1_interval"])
        slope = _with_interval(fitted["slope"], fitted["slope_interval"])
        c2 = "–" if fitted["c2"] is None else f"{fitted['c2']:.2f}"
        r2 = "–" if fitted["r2_means"] is None else f"{fitted['r2_means']:.3f}"
        lines.append(f"{name:<16}{c1:>24}{slope:>26}{c2:>12}{r2:>13}")
    lines += ["", f"{'method':<16}{'m̄':>7}{'gap':>9}{'fit':>9}{'residual':>10}"]
    for name, fitted in bounds["methods"].items():
        for size, gap, rest in zip(
            bounds["sizes"], fitted["mean_gaps"], fitted["residuals"], strict=True
        ):
            values = f"{100 * gap:>9.1f}{100 * (gap - rest):>9.1f}{100 * rest:>+10.1f}"
            lines.append(f"{name:<16}{size:>6g}{values}")
    lines += ["", "A description of means over clients; Eq. 10 leaves c1 and c2 open."]
    return "\n".join(lines)


def _with_interval(value: float, interval: Sequence[float] | None) -> str:
    between = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{100 * value:.1f}{between}"
