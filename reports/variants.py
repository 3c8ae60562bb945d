"""Several runs of one experiment as one thing: which it is, its variants, the seeds of each.

A *variant* is a setting that the experiment compares (a number of shots, a stem): runs whose
configurations are equal but for their seeds. What tells variants apart is read off the
configurations, so nobody has to name them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learngene.adaptation.settings import IndividualSettings, RetainSettings
from learngene.collective.settings import CollectiveSettings
from learngene.data.settings import DataSettings
from learngene.gene.settings import LearngeneSettings
from learngene.methods.registry import base_of
from learngene.open_world.settings import LabelledSettings, OpenWorldSettings
from reports.runs import (
    GatherError,
    check_equal,
    class_seed,
    origin_of,
    runs_table,
    seeds_of,
)
from reports.schema import Results
from reports.summary import answered, method_names
from reports.units import Measured, mean_over_units

if TYPE_CHECKING:
    import pandas as pd

CLIENT = ["seed", "tasks", "client"]  # the index of what is measured of clients
IGNORED_SETTINGS = (  # that make no variant: groups, or fields
    *("seed", "shard_seed", "runtime", "cache", "resume", "report", "faults", "scale"),
    *("logger", "data.root", "data.download", "collective.threads", "collective.capture"),
)
SETTINGS: Mapping[str, Any] = {  # with their defaults, by group
    "data": DataSettings(),
    "collective": CollectiveSettings(),
    "learngene": LearngeneSettings(),
    "individual": IndividualSettings(),
    "retain": RetainSettings(),
    "open_world": OpenWorldSettings(),
    "labelled": LabelledSettings(),
}
PATH_PLACEHOLDERS = {"data.root": "DIR", "learngene.path": "FILE"}  # for paths of one machine
LOCAL_OVERRIDES = ("hydra.run.dir", "hydra.sweep.dir", "cache")  # of one machine, as is runtime.*
OF_SAFEGUARD = ("individual.safeguard_folds", "individual.safeguard_epochs")
OF_DIRICHLET = ("data.alpha", "data.min_images")

RANDOM = "random"
CONTROLS = {  # setting: the value that makes a control of runs without it
    "learngene.control": RANDOM,
    "learngene.projection": "none",
    "labelled.flags": RANDOM,
}


@dataclass(frozen=True)
class Variant:
    """Runs that differ in their seeds alone."""

    label: str  # what tells it from the others: ``shots=10``; empty where there is one variant
    settings: Mapping[str, Any]  # the same by dotted name
    runs: tuple[Results, ...]  # by seed

    @cached_property
    def table(self) -> pd.DataFrame:
        """Its runs as one table."""
        return runs_table(self.runs)

    @property
    def methods(self) -> list[str]:
        """The methods that were compared in any of its runs, in their order."""
        return list(dict.fromkeys(name for run in self.runs for name in method_names(run)))

    @property
    def is_control(self) -> bool:
        """Whether no claim is judged by it: what is drawn at random is a control also by itself,
        what has no projection where others have one."""
        asked = dict(flatten(self.runs[0]["run"]["config"]))
        return any(
            (asked if value == RANDOM else self.settings).get(name) == value
            for name, value in CONTROLS.items()
        )

    @property
    def unit(self) -> str:
        """What a mean over one or two runs is over."""
        return "draw" if self.runs[0].get("labelled") else "client"

    @cached_property
    def classes(self) -> dict[tuple[int | str, int], tuple[str, ...]]:
        """The classes of each (tasks, unit)."""
        of_clients = {
            (origin_of(run)[1], client["id"]): tuple(client["classes"])
            for run in self.runs
            for client in answered(run)
        }
        units = self.table[["tasks", "client", "unit"]].drop_duplicates()
        return {
            (tasks, unit): of_clients[tasks, client]
            for tasks, client, unit in units.itertuples(index=False)
        }

    @property
    def command(self) -> str:
        """The command of the first run, alone even where it was a job of a multirun; a remark names
        the seeds of all where there are several."""
        seeds = ", ".join(
            str(seed) if seed == shards else f"{seed} (shard_seed {shards})"
            for seed, shards in map(seeds_of, self.runs)
        )
        return command_of(self.runs[0]) + (f"  # seeds {seeds}" if len(self.runs) > 1 else "")

    def label_without(self, names: Sequence[str]) -> str:
        """The label without some of the settings."""
        return label_of({n: v for n, v in self.settings.items() if n not in names})

    def config(self, name: str) -> Any:
        """A setting by its dotted name."""
        return dict(flatten(self.runs[0]["run"]["config"]))[name]

    @cached_property
    def _final(self) -> pd.DataFrame:
        """The last epoch's rows, indexed once: hundreds of means are taken of them."""
        return self.table[self.table["last"].astype(bool)].set_index([*CLIENT, "unit"])

    def final_by_client(self, method: str) -> pd.DataFrame:
        """``accuracy`` at the last epoch (a fraction) and ``bytes`` received of a method: a row a
        client; none where it did not take part."""
        return self._of(method).droplevel("unit")

    def _of(self, method: str) -> pd.DataFrame:
        return self._final[self._final.method == method]

    def accuracies(self, method: str) -> pd.Series:
        """A method's accuracy by unit, percent."""
        return _by_unit(100 * self._of(method).accuracy)

    def accuracy(self, method: str) -> Measured:
        """A method's mean accuracy, percent."""
        return self.mean(self.accuracies(method))

    def differences(self, first: str, second: str) -> pd.Series:
        """The first method's accuracy less the second's on the same clients, by unit, points."""
        one, other = (self._of(method).accuracy for method in (first, second))
        return _by_unit(100 * (one - other))

    def curves(self, method: str) -> pd.DataFrame:
        """A method's accuracy, fractions: a row a client, a column an epoch that any recorded."""
        rows = self.table[self.table.method == method]
        return rows.pivot(index=CLIENT, columns="epoch", values="accuracy").astype(float)

    def mean(self, values: pd.Series) -> Measured:
        """The mean of one number a unit."""
        return mean_over_units(values, self.unit)

    def mean_difference(self, values: pd.Series) -> Measured:
        """The mean of one paired difference a unit, with its interval for new classes, too."""
        return mean_over_units(values, self.unit, self.classes)


def _by_unit(by_client: pd.Series) -> pd.Series:
    """The mean of a unit's clients, in the order of the table."""
    levels = ["seed", "tasks", "unit"]
    return by_client.dropna().groupby(level=levels, sort=False).mean()


@dataclass(frozen=True)
class RunGroup:
    """Runs of one experiment on one data set."""

    experiment: str | None  # None: no experiment was named
    data: str
    variants: tuple[Variant, ...]

    @property
    def runs(self) -> list[Results]:
        return [run for variant in self.variants for run in variant.runs]

    def split_by_others(self, *names: str) -> list[RunGroup]:
        """The variants in groups within which only ``names`` differ, in their order."""
        groups: dict[str, list[Variant]] = {}
        for variant in self.variants:
            groups.setdefault(variant.label_without(names), []).append(variant)
        return [RunGroup(self.experiment, self.data, tuple(same)) for same in groups.values()]


def group_runs(runs: Sequence[Results]) -> RunGroup:
    """Sort runs into variants and seeds.

    Raises:
        GatherError: they are of several experiments or data sets, or two have the same settings
            and the same seeds.
    """
    for what, values in (
        ("experiments", [experiment_of(run) or "none" for run in runs]),
        ("datasets", [run["data"]["name"] for run in runs]),
    ):
        if len(set(values)) > 1:
            several = ", ".join(sorted(set(values)))
            raise GatherError(f"these runs are of several {what}: {several}. Gather each alone")
    settings = [variant_settings(run) for run in runs]
    _check_same_images(runs, settings)
    varied = _varied(settings)
    members: dict[str, list[Results]] = {}
    varied_settings: dict[str, dict[str, Any]] = {}
    for run, run_settings in zip(runs, settings, strict=True):
        distinct = {name: run_settings.get(name, default) for name, default in varied.items()}
        label = label_of(distinct)
        varied_settings[label] = distinct
        members.setdefault(label, []).append(run)
    for label, same in members.items():
        if len(set(map(seeds_of, same))) < len(same):
            raise GatherError(
                f"two runs have the same settings{f' ({label})' if label else ''} and the same "
                "seeds: name each run once"
            )
    variants = [
        Variant(label, varied_settings[label], tuple(sorted(same, key=seeds_of)))
        for label, same in members.items()
    ]
    variants.sort(key=lambda variant: [_rank(value) for value in variant.settings.values()])
    return RunGroup(experiment_of(runs[0]), runs[0]["data"]["name"], tuple(variants))


def is_repetition(run: Results, other: Results) -> bool:
    """Whether two runs of one experiment and data set are one seed of one variant."""
    settings = [variant_settings(each) for each in (run, other)]
    return seeds_of(run) == seeds_of(other) and not _varied(settings)


def _varied(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What tells runs apart by their settings, with the value of a run that lacks one.

    A method's setting that only some have is of a method that the others do not compare; another
    one is younger than they are, and had its default."""
    shared = {
        name: default_of(name)
        for each in settings
        for name in each
        if not name.startswith("method.") or all(name in other for other in settings)
    }
    return {
        name: default
        for name, default in shared.items()
        if len({repr(each.get(name, default)) for each in settings}) > 1
    }


def default_of(name: str) -> Any:
    """The default of a setting, by its dotted name; None where it is of no settings class."""
    group, _, field = name.partition(".")
    return getattr(SETTINGS[group], field, None) if group in SETTINGS else None


def _check_same_images(runs: Sequence[Results], settings: Sequence[Mapping[str, Any]]) -> None:
    """Hold that runs with the same settings of the data had the same images: ``data.root`` makes no
    variant, and two folders may hold other ones. Where the seed draws them, each has its own."""
    hashes: dict[str, str] = {}
    for run, run_settings in zip(runs, settings, strict=True):
        data = [(n, v) for n, v in run_settings.items() if n.startswith("data.")]
        sha = run["data"]["sha256"]
        first = hashes.setdefault(repr((class_seed(run), data)), sha)
        if first != sha:
            raise GatherError(
                f"the images differ between these runs: data.sha256 is {first[:12]} and "
                f"{sha[:12]}. Gather runs on the same images"
            )


def variant_settings(run: Results) -> dict[str, Any]:
    """The settings that make a variant, by dotted name: those of ``asked_settings`` that can change
    a number."""
    asked = asked_settings(run)
    return {name: value for name, value in asked.items() if name not in _unread(asked)}


def _unread(settings: Mapping[str, Any]) -> Sequence[str]:
    """Settings that change no number beside these. Where one that decides is not among these, all
    runs have the same, and what hangs on it counts."""
    unread = ["individual.keep"]
    if not settings.get("individual.safeguard", True):
        unread += OF_SAFEGUARD
    if settings.get("data.partition", "dirichlet") != "dirichlet":
        unread += OF_DIRICHLET
    return unread


def asked_settings(run: Results) -> dict[str, Any]:
    """All settings by dotted name but seeds, circumstances and the settings of methods that the run
    has not (but scratch's, which the safeguard reads). A learngene that came from a file is told by
    its content, wherever the file lay. Kept runs are named by these: to leave out one more renames
    all."""
    config = run["run"]["config"]
    methods = {f"method.{base_of(name)}" for name in (*config.get("methods", ()), "scratch")}
    flat = {
        name: value
        for name, value in flatten(config)
        if not name.startswith("method.") or ".".join(name.split(".")[:2]) in methods
    }
    if flat.get("learngene.path"):
        flat["learngene.path"] = run["learngene"]["sha256"][:12]
    return {n: v for n, v in flat.items() if not {n, n.split(".")[0]} & set(IGNORED_SETTINGS)}


def check_comparable(runs: Sequence[tuple[Path, Results]], free: Sequence[str]) -> None:
    """Hold that the runs differ in nothing but the settings ``free``, seeds and circumstances;
    those that only some have are passed over, as in ``group_runs``.

    Raises:
        GatherError: they differ in another one.
    """
    settings = {folder: variant_settings(results) for folder, results in runs}
    for name in next(iter(settings.values())):
        if name not in free and all(name in other for other in settings.values()):
            check_equal(name, {folder: other[name] for folder, other in settings.items()})


def paired_difference(one: Variant, other: Variant, method: str) -> Measured:
    """A method's accuracy in one variant less that in another on the same clients, points."""
    return one.mean_difference(one.accuracies(method) - other.accuracies(method))


def experiment_of(run: Results) -> str | None:
    """The experiment's name."""
    return run["run"].get("experiment")


def command_of(run: Results) -> str:
    """What this run was asked for, without what belongs to one machine; data lie in DIR, a
    learngene that was given in FILE."""
    return shlex.join(["python", "sim.py", *portable_overrides(run)])


def portable_overrides(run: Results) -> list[str]:
    """The overrides of ``command_of``."""
    words = [word.partition("=") for word in run["run"]["overrides"]]
    return [
        f"{name}{sign}{PATH_PLACEHOLDERS.get(name) or without_folder(value)}"
        for name, sign, value in words
        if name not in LOCAL_OVERRIDES and name.partition(".")[0] != "runtime"
    ]


def without_folder(value: Any) -> Any:
    """A setting; of a path of one machine its name alone."""
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def label_of(settings: Mapping[str, Any]) -> str:
    """Settings as the command line has them, with commas between, but for those without a say."""
    unread = _unread(settings)
    return ", ".join(f"{n}={_text(value)}" for n, value in settings.items() if n not in unread)


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted name, as the command line has it: ``retain.ewc_lambda``."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return f"[{','.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _rank(value: Any) -> tuple[int, list[float], str]:
    """Numbers and lists of them in their order, then texts in theirs."""
    numbers = value if isinstance(value, list) else [value]
    if all(isinstance(number, int | float) for number in numbers):
        return 0, [float(number) for number in numbers], ""
    return 1, [], _text(value)
