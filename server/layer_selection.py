"""Which layers are the learngene: what is asked for, and what the criterion selects."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from learngene.collective.criterion import (
    TREND_TASKS,
    Trend,
    TrendRule,
    align,
    layer_trends,
    select_layers,
)
from learngene.collective.records import TrainerSettings
from learngene.errors import InputError
from learngene.gene.settings import LearngeneSettings
from server.collective import TrainedCollective

TOP = 3  # layers that learngene.layers=top takes: the paper's choice


@dataclass(frozen=True)
class Selection:
    """What the criterion says of one collective (Eq. 4-5 and the trend rule)."""

    names: list[str]  # of the layers at the end, lowest first
    rho: list[list[float | None]]  # [task][layer]; None before a layer was there
    trends: list[Trend]
    selected: list[int]  # counted from 1 in the collective at its end

    def section(self, settings: TrainerSettings, rule: TrendRule) -> dict[str, Any]:
        """``criterion`` of ``results.json``."""
        pairs = zip(self.names, self.trends, strict=True)
        layers = [
            {"layer": number, "name": name, **asdict(trend)}
            for number, (name, trend) in enumerate(pairs, start=1)
        ]
        return {
            "form": settings.rho,
            "sigma": settings.sigma,
            "rho": self.rho,
            "selected": self.selected,
            "names": self.names,
            "rule": {**asdict(rule), "tasks_needed": TREND_TASKS, "layers": layers},
        }


def apply_criterion(trained: TrainedCollective, rule: TrendRule) -> Selection:
    """Apply the criterion to a finished collective."""
    stages = trained.trainer.stages
    names = stages[-1].layers
    rows = align([stage.rho for stage in stages], [stage.layers for stage in stages])
    trends = layer_trends(rows, rule)
    return Selection(names, rows, trends, select_layers(trends, rule))


def layer_numbers(settings: LearngeneSettings, names: list[str]) -> list[int]:
    """The numbers of the inherited layers in a collective that ends with the layers ``names``.

    Args:
        settings: with ``layers`` as asked for, and not ``auto``.

    Raises:
        InputError: the collective is not that deep.
    """
    asked, depth = settings.layers, len(names)
    if asked == "front":
        return list(range(1, settings.depth + 1))
    if asked == "top":
        asked = TOP
    layers = list(range(depth - asked + 1, depth + 1)) if isinstance(asked, int) else list(asked)
    if layers[-1] > depth:
        problem = f"the collective ends with {depth} layers: {', '.join(names)}"
        raise InputError("learngene.layers", layers, problem, f"Name layers up to {depth}")
    return layers


def chosen_layers(selection: Selection) -> list[int]:
    """What the rule selects, for ``auto``; raises InputError when that is nothing."""
    if selection.selected:
        return selection.selected
    tasks = len(selection.rho)
    if tasks < TREND_TASKS:
        problem = f"a trend needs {TREND_TASKS} tasks, the collective had {tasks}"
        fix = "Write learngene.layers=top, or lower collective.classes_per_task"
    else:
        highest = max(trend.trend for trend in selection.trends)
        none = "no layer has a trend above learngene.auto_bar"
        problem = f"{none}; the highest is {highest:.2f}"
        fix = "Write learngene.layers=top, or lower learngene.auto_bar"
    raise InputError("learngene.layers", "auto", problem, fix)
