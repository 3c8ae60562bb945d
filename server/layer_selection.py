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
from learngene.errors import InputError
from learngene.networks.collective import COLLECTIVE_START
from learngene.networks.growth import COPIES
from learngene.networks.layers import NO_LIGHT_PATH
from server.collective import TrainedCollective

TOP = 3  # what learngene.layers=auto trains with before it knows better: the paper's choice


@dataclass(frozen=True)
class Selection:
    """What the criterion says of one collective (Eq. 4-5 and the trend rule)."""

    names: list[str]  # of the layers at the end, lowest first
    rho: list[list[float | None]]  # [task][layer]; None before a layer was there
    trends: list[Trend]
    selected: list[int]  # counted from 1 in the collective at its end
    collective: str  # its key

    def section(self, sigma: float, rule: TrendRule) -> dict[str, Any]:
        """``criterion`` of ``results.json``."""
        pairs = zip(self.names, self.trends, strict=True)
        layers = [
            {"layer": number, "name": name, **asdict(trend)}
            for number, (name, trend) in enumerate(pairs, start=1)
        ]
        return {
            "sigma": sigma,
            "rho": self.rho,
            "selected": self.selected,
            "names": self.names,
            "rule": {**asdict(rule), "tasks_needed": TREND_TASKS, "layers": layers},
        }


def apply_criterion(trained: TrainedCollective, rule: TrendRule) -> Selection:
    """Apply the criterion to a finished collective.

    Where there is a light path, a layer that was deepened and its copies are not selected: no light
    path could have shared them from the start.
    """
    stages = trained.trainer.stages
    names = stages[-1].layers
    rows = align([stage.rho for stage in stages], [stage.layers for stage in stages])
    roots = [name.rstrip(COPIES) for name in names]
    light = trained.trainer.collective.light is not None
    eligible = [not light or roots.count(root) == 1 for root in roots]
    trends = layer_trends(rows, rule)
    return Selection(names, rows, trends, select_layers(trends, rule, eligible), trained.key)


def layer_numbers(asked: int | list[int], names: list[str]) -> list[int]:
    """The numbers of the inherited layers in a collective that ends with the layers ``names``.

    Raises:
        InputError: the collective is not that deep.
    """
    depth = len(names)
    layers = list(range(depth - asked + 1, depth + 1)) if isinstance(asked, int) else list(asked)
    if layers[-1] > depth:
        problem = f"the collective ends with {depth} layers: {', '.join(names)}"
        raise InputError("learngene.layers", layers, problem, f"Name layers up to {depth}")
    return layers


def shared_layers(layers: list[int], names: list[str], stem: str) -> tuple[int, int]:
    """How many layers the light path shares, and which of the paper's 13 is the last of them.

    Without a light path (a fresh stem) the choice of layers does not touch the collective.
    """
    if stem in NO_LIGHT_PATH:
        return TOP, len(COLLECTIVE_START)
    inside = [names[layer - 1] for layer in layers]
    copies = [name for name in inside if not name.isdigit()]
    if copies:
        copy = f"these are {', '.join(inside)}, and {copies[0]} is a copy that growth makes"
        problem = f"{copy}: the light path shares its layers from the start"
        fix = "Name layers that the plan does not deepen, or write individual.stem=fresh"
        raise InputError("learngene.layers", layers, problem, fix)
    return len(layers), int(inside[-1])


def chosen_layers(selection: Selection) -> list[int]:
    """What the rule selects, for ``auto``; raises InputError when that is nothing."""
    if selection.selected:
        return selection.selected
    tasks = len(selection.rho)
    if tasks < TREND_TASKS:
        problem = f"a trend needs {TREND_TASKS} tasks, the collective had {tasks}"
        fix = "Write learngene.layers=3, or lower collective.classes_per_task"
    else:
        highest = max(trend.trend for trend in selection.trends)
        none = "no layer that may be selected has a trend above learngene.auto_bar"
        problem = f"{none}; the highest of all is {highest:.2f}"
        fix = "Write learngene.layers=3, or lower learngene.auto_bar"
    raise InputError("learngene.layers", "auto", problem, fix)
