"""One number a client, of one run or several, and its mean.

A *unit* is what a mean is over: a client's private task, or a draw of classes that clients share
(table 2), at one collective. Runs of one shard seed have the same tasks: where clients are counted,
what two collectives did on a task is one client, not two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from reports.schema import Results
from reports.statistics import summarise
from reports.summary import answered

LEAST_SEEDS = 3  # from so many on, the interval is over seeds: two would give no useful one
Task = tuple[int, int]  # shard seed; client or draw
Unit = tuple[int, int, int]  # seed, which makes the collective; shard seed; client or draw
Values = Callable[[Results], Mapping[Unit, float]]


@dataclass(frozen=True)
class Measured:
    """A mean over clients or over seeds, in any unit."""

    mean: float | None
    ci95: float | None  # half the 95 % Student-t interval
    n: str  # ``20 clients``, ``3 seeds``


def over(by_run: Sequence[Mapping[Unit, float]], one: str = "client") -> Measured:
    """A mean over all tasks of one or two seeds, over the means of the seeds of three or more.

    With several seeds, the collective itself differs between them: only an interval over seeds
    speaks for a further collective. Several shard seeds of one seed are further clients of one
    collective.
    """
    by_seed: dict[int, list[float]] = {}
    for values in by_run:
        for (seed, *_), value in values.items():
            by_seed.setdefault(seed, []).append(value)
    if len(by_seed) >= LEAST_SEEDS:
        found, unit = summarise([sum(each) / len(each) for each in by_seed.values()]), "seed"
    else:
        found, unit = summarise(list(pooled(by_run).values())), one
    return Measured(found["mean"], found["ci95"], counted(int(found["n"] or 0), unit))


def counted(n: int, one: str) -> str:
    """A number of things, as a table says it: ``1 run``, ``3 seeds``."""
    return f"{n} {one}{'' if n == 1 else 's'}"


def over_runs(values: Sequence[tuple[Results, float]]) -> Measured:
    """The mean over seeds of one number a run, with an interval from three seeds on: one over two
    would say nothing. Runs of one seed have one collective: their mean is the seed's."""
    by_seed: dict[int, list[float]] = {}
    for run, value in values:
        by_seed.setdefault(seeds_of(run)[0], []).append(value)
    found = summarise([sum(each) / len(each) for each in by_seed.values()])
    if len(by_seed) < LEAST_SEEDS:
        return Measured(found["mean"], None, counted(len(values), "run"))
    return Measured(found["mean"], found["ci95"], counted(len(by_seed), "seed"))


def pooled(by_run: Sequence[Mapping[Unit, float]]) -> dict[Task, float]:
    """The tasks of all runs; one that several have is the mean of them: a task that was learned
    twice, from two collectives, is no second task."""
    found: dict[Task, list[float]] = {}
    for values in by_run:
        for (_, shards, client), value in values.items():
            found.setdefault((shards, client), []).append(value)
    return {task: sum(each) / len(each) for task, each in found.items()}


def seeds_of(run: Results) -> tuple[int, int]:
    """The seed of everything and that of the shards."""
    seed = run["run"]["seed"]
    shards = run["run"].get("shard_seed")
    return seed, seed if shards is None else shards


def accuracies(method: str) -> Values:
    """A method's accuracy on every client (or draw, see ``_by_draw``), percent; nothing where it
    did not take part."""
    return lambda run: _by_draw(
        run,
        {
            client["id"]: 100 * client["methods"][method]["accuracy"]
            for client in answered(run)
            if method in client["methods"]
        },
    )


def differences(first: str, second: str) -> Values:
    """The first method's accuracy less the second's, a client (or draw) each, points."""
    return lambda run: _by_draw(
        run,
        {
            c["id"]: 100 * (c["methods"][first]["accuracy"] - c["methods"][second]["accuracy"])
            for c in answered(run)
            if first in c["methods"] and second in c["methods"]
        },
    )


def _by_draw(run: Results, values: Mapping[int, float]) -> dict[Unit, float]:
    """The values; in table 2's protocol the means of each draw of classes, which the clients with
    the same remainder share (``labelled.draws``): clients of one draw have the same classes. Draws
    overlap, too (five of 16 classes each), so they are not quite independent either."""
    seeds = seeds_of(run)
    draws = (run.get("labelled") or {}).get("draws")
    if not draws:
        return {(*seeds, client): value for client, value in values.items()}
    by_draw: dict[int, list[float]] = {}
    for client, value in values.items():
        by_draw.setdefault(client % draws, []).append(value)
    return {(*seeds, draw): sum(each) / len(each) for draw, each in by_draw.items()}
