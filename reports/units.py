"""Means of one number a client or a run, with their intervals.

A *unit* is what a mean is over: a client's private task, or a draw of classes that clients share
(table 2), at one collective. Runs of one shard seed have the same tasks, unless the seed draws the
classes: where clients are counted, what two collectives did on a task is one client, not two.
Values are a pandas series with the index seed (which makes the collective), tasks (what they were
drawn by: ``runs.origin_of``), unit; values that a client has not are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reports.runs import seeds_of
from reports.schema import Results
from reports.statistics import LEAST_PAIRS, class_interval, summarise

if TYPE_CHECKING:
    import pandas as pd

LEAST_SEEDS = 3  # from so many on, the interval is over seeds: two would give no useful one


@dataclass(frozen=True)
class Measured:
    """A mean over clients or over seeds, in any unit."""

    mean: float | None
    ci95: float | None  # half the 95 % Student-t interval
    n: str  # ``20 clients``, ``3 seeds``
    ci95_classes: float | None = None  # half that for new classes; of paired differences
    too_few: bool = False  # a paired difference of fewer than ``statistics.LEAST_PAIRS``


def mean_over_units(
    values: pd.Series,
    unit: str = "client",
    classes: Mapping[tuple[int | str, int], Collection[str]] | None = None,
) -> Measured:
    """A mean over all tasks of one or two seeds, over the means of the seeds of three or more.

    With several seeds, the collective itself differs between them: only an interval over seeds
    speaks for a further collective. Several shard seeds of one seed are further clients of one
    collective.

    Args:
        classes: of each (tasks, unit); with them there is an interval for new classes, too,
            over all tasks, at these collectives.
    """
    values = values.dropna()
    by_seed, by_task = values.groupby(level=0, sort=False).mean(), mean_by_task(values)
    if len(by_seed) >= LEAST_SEEDS:
        summary, unit = summarise(by_seed.tolist()), "seed"
    else:
        summary = summarise(by_task.tolist())
    of = [classes[task] for task in by_task.index] if classes else []
    new = class_interval(by_task.tolist(), of) if of else None
    n, few = counted(int(summary["n"] or 0), unit), classes is not None and len(of) < LEAST_PAIRS
    return Measured(summary["mean"], summary["ci95"], n, new, few)


def mean_by_task(values: pd.Series) -> pd.Series:
    """A value a task: one that was learned twice, from two collectives, is no second task."""
    return values.groupby(level=[1, 2], sort=False).mean()


def mean_over_runs(values: Sequence[tuple[Results, float]]) -> Measured:
    """The mean over seeds of one number a run, with an interval from three seeds on: one over two
    would say nothing. Runs of one seed have one collective: their mean is the seed's."""
    by_seed: dict[int, list[float]] = {}
    for run, value in values:
        by_seed.setdefault(seeds_of(run)[0], []).append(value)
    summary = summarise([sum(numbers) / len(numbers) for numbers in by_seed.values()])
    if len(by_seed) < LEAST_SEEDS:
        return Measured(summary["mean"], None, counted(len(values), "run"))
    return Measured(summary["mean"], summary["ci95"], counted(len(by_seed), "seed"))


def counted(n: int, noun: str) -> str:
    """A number of things, as a table says it: ``1 run``, ``3 seeds``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
