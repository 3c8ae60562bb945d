"""Several runs of one experiment as one thing: which it is, its arms, the seeds of each.

An *arm* is a setting that the experiment compares (a number of shots, a stem): runs whose
configurations are equal but for their seeds. What tells the arms apart is read off the
configurations, so nobody has to name them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from server.runs import GatherError, find_runs
from server.statistics import summarise
from server.wording import Results, answered

LEAST_SEEDS = 3  # from so many on, the interval is over seeds: two would give no useful one
NEUTRAL = (  # settings that make no arm: groups, or fields
    *("seed", "shard_seed", "runtime", "cache", "resume", "report", "faults", "scale"),
    *("data.root", "data.download", "collective.threads"),
)
PRIVATE = ("hydra.run.dir", "hydra.sweep.dir", "cache")  # overrides of one machine
Values = Callable[[Results], Sequence[float]]


@dataclass(frozen=True)
class Measured:
    """A mean over clients or over seeds, in any unit."""

    mean: float | None
    ci95: float | None  # half the 95 % Student-t interval
    n: str  # ``20 clients``, ``3 seeds``


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seeds alone."""

    label: str  # what tells it from the other arms: ``shots=10``; empty where there is one arm
    settings: Mapping[str, Any]  # the same by dotted name
    runs: tuple[Results, ...]  # by seed

    def label_without(self, names: Sequence[str]) -> str:
        """The label without some of the settings."""
        return label_of({n: v for n, v in self.settings.items() if n not in names})

    def config(self, name: str) -> Any:
        """A setting by its dotted name."""
        value: Any = self.runs[0]["run"]["config"]
        for part in name.split("."):
            value = value[part]
        return value

    @property
    def command(self) -> str:
        """The command of the first run, alone even where it was a job of a multirun."""
        return command_of(self.runs[0])

    def measured(self, values: Values) -> Measured:
        """The mean of one number a client (``values`` of a run gives them all)."""
        unit = "draw" if self.runs[0].get("labelled") else "client"
        return over([list(values(run)) for run in self.runs], unit)


@dataclass(frozen=True)
class Gathered:
    """Runs of one experiment on one world."""

    experiment: str | None  # None: no experiment was named
    data: str
    arms: tuple[Arm, ...]

    @property
    def runs(self) -> list[Results]:
        return [run for arm in self.arms for run in arm.runs]


def groups(gathered: Gathered, *names: str) -> list[Gathered]:
    """The arms in groups within which only ``names`` differ, in their order."""
    found: dict[str, list[Arm]] = {}
    for arm in gathered.arms:
        found.setdefault(arm.label_without(names), []).append(arm)
    return [Gathered(gathered.experiment, gathered.data, tuple(arms)) for arms in found.values()]


def over(by_run: Sequence[Sequence[float]], one: str = "client") -> Measured:
    """A mean over all clients of one or two runs, over the means of the runs of three or more.

    With several seeds, the collective itself differs between them: only an interval over seeds
    speaks for a further collective.
    """
    full = [list(values) for values in by_run if values]
    if len(full) >= LEAST_SEEDS:
        found, unit = summarise([sum(v) / len(v) for v in full]), "seed"
    else:
        found, unit = summarise([value for values in full for value in values]), one
    n = int(found["n"] or 0)
    return Measured(found["mean"], found["ci95"], f"{n} {unit}{'' if n == 1 else 's'}")


def read(folders: Sequence[Path]) -> list[Results]:
    """The results of every run at or below the folders.

    Raises:
        GatherError: one holds no usable results, or none was named.
    """
    if not folders:
        raise GatherError("no run was named: name folders that runs wrote")
    found = find_runs(folders)
    for folder, results in found:
        if not results["run"].get("config"):
            raise GatherError(f"{folder}: the results hold no configuration; run it again")
    return [results for _, results in found]


def gather(runs: Sequence[Results]) -> Gathered:
    """Sort runs into arms and seeds.

    Raises:
        GatherError: they are of several experiments or worlds, or two have the same settings and
            the same seeds.
    """
    for what, values in (
        ("experiments", [experiment_of(run) or "none" for run in runs]),
        ("worlds", [run["data"]["name"] for run in runs]),
    ):
        if len(set(values)) > 1:
            several = ", ".join(sorted(set(values)))
            raise GatherError(f"these runs are of several {what}: {several}. Gather each alone")
    settings = [arm_settings(run) for run in runs]
    # A field that only some have came with a later release: it tells nothing apart.
    shared = [name for name in settings[0] if all(name in each for each in settings)]
    names = [name for name in shared if len({repr(each[name]) for each in settings}) > 1]
    arms: dict[str, list[tuple[Any, Results]]] = {}
    told: dict[str, dict[str, Any]] = {}
    for run, each in zip(runs, settings, strict=True):
        apart = {name: each[name] for name in names}
        label = label_of(apart)
        told[label] = apart
        arms.setdefault(label, []).append((seeds_of(run), run))
    for label, found in arms.items():
        if len({seeds for seeds, _ in found}) < len(found):
            raise GatherError(
                f"two runs have the same settings{f' ({label})' if label else ''} and the same "
                "seeds: name each run once"
            )
    made = [
        Arm(label, told[label], tuple(run for _, run in sorted(found, key=lambda pair: pair[0])))
        for label, found in arms.items()
    ]
    made.sort(key=lambda arm: [_rank(value) for value in arm.settings.values()])
    return Gathered(experiment_of(runs[0]), runs[0]["data"]["name"], tuple(made))


def arm_settings(run: Results) -> dict[str, Any]:
    """The settings that make an arm, by dotted name: all but seeds and circumstances."""
    flat = dict(_flat(run["run"]["config"]))
    return {n: v for n, v in flat.items() if not {n, n.split(".")[0]} & set(NEUTRAL)}


def experiment_of(run: Results) -> str | None:
    """The experiment's name; older results have it in their configuration alone."""
    named = run["run"].get("experiment")
    return named or (run["run"].get("config") or {}).get("experiment")


def command_of(run: Results) -> str:
    """What this run was asked for, without what belongs to one machine; data lie in DIR."""
    return shlex.join(["python", "sim.py", *asked_of(run)])


def asked_of(run: Results) -> list[str]:
    """The overrides of ``command_of``."""
    written = run["run"].get("overrides")
    if written is None:  # results of older releases
        written = shlex.split(run["run"].get("command") or "")[2:]
    kept = [word for word in written if word.split("=")[0] not in PRIVATE]
    return ["data.root=DIR" if word.startswith("data.root=") else word for word in kept]


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


def _by_draw(run: Results, values: Mapping[int, float]) -> list[float]:
    """The values; in table 2's protocol the means of each draw of classes, which the clients with
    the same remainder share (``labelled.draws``): only draws are independent."""
    draws = (run.get("labelled") or {}).get("draws")
    if not draws:
        return list(values.values())
    by_draw: dict[int, list[float]] = {}
    for client, value in values.items():
        by_draw.setdefault(client % draws, []).append(value)
    return [sum(each) / len(each) for each in by_draw.values()]


def between(one: Arm, other: Arm, method: str) -> Measured:
    """A method's accuracy in one arm less that in another, paired by seeds and client, points."""
    pairs = []
    for run in one.runs:
        match = next((r for r in other.runs if seeds_of(r) == seeds_of(run)), None)
        if match is None:
            continue
        theirs = {c["id"]: c for c in answered(match)}
        pairs.append([
            100 * (c["methods"][method]["accuracy"]
                   - theirs[c["id"]]["methods"][method]["accuracy"])
            for c in answered(run)
            if c["id"] in theirs and c["classes"] == theirs[c["id"]]["classes"]
        ])  # fmt: skip
    return over(pairs)


def label_of(settings: Mapping[str, Any]) -> str:
    """Settings as the command line has them, with commas between."""
    return ", ".join(f"{name}={_value(value)}" for name, value in settings.items())


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in config.items():
        inner = isinstance(value, Mapping)
        found += _flat(value, f"{prefix}{name}.") if inner else [(prefix + name, value)]
    return found


def _value(value: Any) -> str:
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _rank(value: Any) -> tuple[int, list[float], str]:
    """Numbers and lists of them in their order, then texts in theirs."""
    numbers = value if isinstance(value, list) else [value]
    if all(isinstance(each, int | float) for each in numbers):
        return 0, [float(each) for each in numbers], ""
    return 1, [], _value(value)
