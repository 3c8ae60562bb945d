"""Several runs of one experiment as one thing: which it is, its arms, the seeds of each.

An *arm* is a setting that the experiment compares (a number of shots, a stem): runs whose
configurations are equal but for their seeds. What tells the arms apart is read off the
configurations, so nobody has to name them.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reports.runs import GatherError, find_runs, must_agree
from reports.schema import Results
from reports.summary import answered
from reports.units import Measured, Task, Values, over, pooled, seeds_of

NEUTRAL = (  # settings that make no arm: groups, or fields
    *("seed", "shard_seed", "runtime", "cache", "resume", "report", "faults", "scale"),
    *("logger", "data.root", "data.download", "collective.threads"),
)
PLACES = {"data.root": "DIR", "learngene.path": "FILE"}  # paths of one machine, as they are told
PRIVATE = ("hydra.run.dir", "hydra.sweep.dir", "cache")  # overrides of one machine


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
        """The command of the first run, alone even where it was a job of a multirun; a remark names
        the seeds of all where there are several."""
        seeds = ", ".join(
            str(seed) if seed == shards else f"{seed} (shard_seed {shards})"
            for seed, shards in map(seeds_of, self.runs)
        )
        return command_of(self.runs[0]) + (f"  # seeds {seeds}" if len(self.runs) > 1 else "")

    def measured(self, values: Values) -> Measured:
        """The mean of one number a client (``values`` of a run gives them all)."""
        return over([values(run) for run in self.runs], self.unit)

    def pooled(self, values: Values) -> dict[Task, float]:
        """The number of every client's task, the mean of the runs that have the same one."""
        return pooled([values(run) for run in self.runs])

    @property
    def unit(self) -> str:
        """What a mean over one or two runs is over."""
        return "draw" if self.runs[0].get("labelled") else "client"


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


def read(folders: Sequence[Path]) -> list[Results]:
    """The results of every run at or below the folders; raises what ``read_runs`` does."""
    return [results for _, results in read_runs(folders)]


def read_runs(folders: Sequence[Path]) -> list[tuple[Path, Results]]:
    """Every run at or below the folders, with its results.

    Raises:
        GatherError: one holds no usable results, or none was named.
    """
    if not folders:
        raise GatherError("no run was named: name folders that runs wrote")
    found = find_runs(folders)
    for folder, results in found:
        if not results["run"].get("config"):
            raise GatherError(f"{folder}: the results hold no configuration; run it again")
    return found


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
    _same_images(runs, settings)
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


def _same_images(runs: Sequence[Results], settings: Sequence[Mapping[str, Any]]) -> None:
    """Hold that runs with the same settings of the data had the same images: ``data.root`` makes no
    arm, and two folders may hold other ones."""
    seen: dict[str, str] = {}
    for run, each in zip(runs, settings, strict=True):
        asked = repr([(n, v) for n, v in each.items() if n.startswith("data.")])
        sha = run["data"]["sha256"]
        if seen.setdefault(asked, sha) != sha:
            raise GatherError(
                f"the images differ between these runs: data.sha256 is {seen[asked][:12]} and "
                f"{sha[:12]}. Gather runs on the same images"
            )


def arm_settings(run: Results) -> dict[str, Any]:
    """The settings that make an arm, by dotted name: all but seeds, circumstances and the settings
    of methods that the run has not (but scratch's, whose stem all opponents have). A learngene that
    came from a file is told by its content, wherever the file lay."""
    config = run["run"]["config"]
    of = {f"method.{name}" for name in (*config.get("methods", ()), "scratch")}
    flat = {
        name: value
        for name, value in _flat(config)
        if not name.startswith("method.") or ".".join(name.split(".")[:2]) in of
    }
    if flat.get("learngene.path"):
        flat["learngene.path"] = run["learngene"]["sha256"][:12]
    return {n: v for n, v in flat.items() if not {n, n.split(".")[0]} & set(NEUTRAL)}


def must_share(runs: Sequence[tuple[Path, Results]], free: Sequence[str]) -> None:
    """Hold that the runs differ in nothing but the settings ``free``, seeds and circumstances. A
    field that only some have came with a later release and is passed over, as in ``gather``.

    Raises:
        GatherError: they differ in another one, or one holds no configuration.
    """
    for folder, results in runs:
        if not results["run"].get("config"):
            raise GatherError(f"{folder}: the results hold no configuration; run it again")
    settings = {folder: arm_settings(results) for folder, results in runs}
    for name in next(iter(settings.values())):
        if name not in free and all(name in each for each in settings.values()):
            pairs = [(folder, {"of": settings[folder][name]}) for folder, _ in runs]
            must_agree(pairs, name, lambda each: each["of"])


def experiment_of(run: Results) -> str | None:
    """The experiment's name; older results have it in their configuration alone."""
    named = run["run"].get("experiment")
    return named or (run["run"].get("config") or {}).get("experiment")


def command_of(run: Results) -> str:
    """What this run was asked for, without what belongs to one machine; data lie in DIR, a
    learngene that was given in FILE."""
    return shlex.join(["python", "sim.py", *asked_of(run)])


def asked_of(run: Results) -> list[str]:
    """The overrides of ``command_of``."""
    written = run["run"].get("overrides")
    if written is None:  # results of older releases
        written = shlex.split(run["run"].get("command") or "")[2:]
    kept = [word for word in written if word.split("=")[0] not in PRIVATE]
    names = [word.split("=")[0] for word in kept]
    return [f"{n}={PLACES[n]}" if n in PLACES else w for n, w in zip(names, kept, strict=True)]


def between(one: Arm, other: Arm, method: str) -> Measured:
    """A method's accuracy in one arm less that in another, paired by seeds and client, points."""
    pairs = []
    for run in one.runs:
        match = next((r for r in other.runs if seeds_of(r) == seeds_of(run)), None)
        if match is None:
            continue
        theirs = {c["id"]: c for c in answered(match)}
        pairs.append({
            (*seeds_of(run), c["id"]): 100 * (
                c["methods"][method]["accuracy"] - theirs[c["id"]]["methods"][method]["accuracy"]
            )
            for c in answered(run)
            if c["id"] in theirs and c["classes"] == theirs[c["id"]]["classes"]
        })  # fmt: skip
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
