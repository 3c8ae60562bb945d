"""Rows of the experiments that look at the collective itself.

What a run does not hold (a collective, a measure that needs two tasks, results that an earlier
release kept without it) has no row. Numbers of a collective are one a run: an interval needs seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reports.experiments.base import Row, any_rows, row
from reports.experiments.rows_figures import layer_names
from reports.schema import Results
from reports.units import over_runs
from reports.variants import Arm, Gathered

HEAVY, LIGHT = "13 layers", "light path"  # the collective's two paths; the first may be deeper
CONTINUAL = (  # of ``collective.continual``: name, key, unit
    ("average incremental accuracy", "average_incremental_accuracy", "%"),
    ("average accuracy after the last task", "average_accuracy", "%"),
    ("forgetting", "forgetting", "points"),
    ("backward transfer", "backward_transfer", "points"),
)


def growth_ablation(gathered: Gathered) -> list[Row]:
    """What the collective became, what it took, what the criterion selects, what clients gain."""
    found = []
    for arm in gathered.arms:
        runs = [run for run in arm.runs if run["collective"]]
        last = [run["collective"]["stages"][-1] for run in runs]
        for path, key in ((deep(runs), "accuracy"), (LIGHT, "light_accuracy")):
            values = [_percent(stage.get(key)) for stage in last]
            found += _row(arm, runs, f"accuracy on all known classes, {path}", "%", values)
        sizes = [stage.get("parameters") for stage in last]
        found += _row(arm, runs, "parameters at the end", "thousand", [_thousand(n) for n in sizes])
        passes = [_sum(run["collective"]["stages"], "image_passes") for run in runs]
        found += _row(arm, runs, "image passes", "thousand", [_thousand(n) for n in passes])
        chosen = [_selected(run) for run in runs]
        said = "; ".join(", ".join(each) or "none" for each in chosen)
        counts = [float(len(each)) for each in chosen]
        found += _row(
            arm, runs, "layers that the criterion selects", "layers", counts, f"layers {said}"
        )
        found += _clients(gathered, arm)
    return found


def class_incremental(gathered: Gathered) -> list[Row]:
    """The measures of class-incremental learning, by both paths where there are two."""
    found = []
    for arm in gathered.arms:
        runs = [run for run in arm.runs if (run["collective"] or {}).get("continual")]
        paths = (
            (deep(runs), [run["collective"]["continual"] for run in runs]),
            (LIGHT, [run["collective"]["continual"].get("light") or {} for run in runs]),
        )
        for path, measured in paths:
            for name, key, unit in CONTINUAL:
                values = [_percent(each.get(key)) for each in measured]
                note = f"memory {arm.config('collective.memory')}"
                found += _row(arm, runs, f"{name}, {path}", unit, values, note)
    return found


def open_world_cycle(gathered: Gathered) -> list[Row]:
    """What the streams brought, what it cost, what was learned and kept, what clients gain."""
    found = []
    for arm in gathered.arms:
        runs = [run for run in arm.runs if cycle_of(run)]
        met = [cycle_of(run) for run in runs]

        def summed(name: str, met: Sequence[Results] = met) -> list[float]:
            return [float(sum(each[name] for each in one["cycles"])) for one in met]

        for name, unit, values, note in (
            ("open-world classes learned", "classes", [float(m["discovered"]) for m in met],
             f"of {_said(m['open_world_classes'] for m in met)}"),
            ("labels spent", "labels", summed("labels_spent"),
             f"at most {_said(m['settings']['labels_per_cycle'] for m in met)} a cycle"),
            ("labels spent on known images", "labels", summed("known_sent"), "needless"),
            ("unknown images missed", "images", summed("unknown_missed"),
             f"of {_said(map(int, summed('unknown_images')))} unknown"),
            ("known images called unknown", "images", summed("known_called_unknown"),
             f"of {_said(map(int, summed('known_images')))} known"),
        ):  # fmt: skip
            found += _row(arm, runs, name, unit, values, note)
        for path, prefix in ((deep(runs), ""), (LIGHT, "light_")):
            for classes in ("old", "new"):
                for moment, stages in (("before", [m["before"] for m in met]),
                                       ("after", [m["cycles"][-1] for m in met])):  # fmt: skip
                    values = [_percent(stage.get(f"{prefix}{classes}_accuracy"))
                              for stage in stages]  # fmt: skip
                    name = f"accuracy on {classes} classes {moment} the cycles, {path}"
                    found += _row(arm, runs, name, "%", values)
        found += _clients(gathered, arm)
    return found


def deep(runs: Sequence[Results]) -> str:
    """The collective's main path: 13 layers, or as many as a plan has made of them."""
    lived = [run["collective"] for run in runs if run["collective"]]
    found = {len(each.get("layers") or each["conv_widths"]) for each in lived}
    return f"{_said(found)} layers" if found else HEAVY


def cycle_of(run: Results) -> Mapping[str, Any]:
    """``open_world.cycle`` of a run that met at least one stream, else nothing."""
    found = (run["open_world"] or {}).get("cycle") or {}
    return found if found.get("cycles") else {}


def _clients(gathered: Gathered, arm: Arm) -> list[Row]:
    return any_rows(Gathered(gathered.experiment, gathered.data, (arm,)))


def _row(
    arm: Arm,
    runs: Sequence[Results],
    quantity: str,
    unit: str,
    values: Sequence[float | None],
    note: str = "",
) -> list[Row]:
    """The row of one value a run, or none where no run has one."""
    there = [(run, x) for run, x in zip(runs, values, strict=True) if x is not None]
    return [row(arm, quantity, unit, over_runs(there), note=note)] if there else []


def _selected(run: Results) -> list[str]:
    """The layers that the criterion selects, by name."""
    names = layer_names(run)
    return [names[number - 1] for number in run["criterion"]["selected"]]


def _sum(stages: Sequence[Mapping[str, Any]], key: str) -> int | None:
    """The sum over tasks; None where one of them does not have it."""
    values = [stage.get(key) for stage in stages]
    return None if None in values else sum(value for value in values if value is not None)


def _thousand(value: float | None) -> float | None:
    return None if value is None else value / 1000


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _said(values: Any) -> str:
    """The different values of the runs, in their order."""
    return " or ".join(str(value) for value in sorted(set(values)))


ROWS: dict[str, Callable[[Gathered], list[Row]]] = {
    "growth_ablation": growth_ablation,
    "class_incremental": class_incremental,
    "open_world_cycle": open_world_cycle,
}
