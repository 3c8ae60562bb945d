"""Which layers are the learngene: what is asked for, and what the criterion selects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from learngene.collective.criterion import (
    TREND_TASKS,
    TrendRule,
    align,
    layer_trends,
    select_layers,
)
from learngene.collective.records import TaskRecord, TrainerSettings
from learngene.errors import InputError
from learngene.gene.settings import LearngeneSettings
from server.transfer import held_against

TOP = 3  # layers that learngene.layers=top takes: the paper's choice


def criterion_section(
    stages: Sequence[TaskRecord], settings: TrainerSettings, transfer: Mapping[str, Any] | None
) -> dict[str, Any]:
    """``criterion`` of ``results.json``: Eq. 4-5 and the trend rule on a finished collective, held
    against its transfer profile (``transfer_section``)."""
    names, rule = stages[-1].layers, TrendRule()
    rho = align([stage.rho for stage in stages], [stage.layers for stage in stages])
    trends = layer_trends(rho, rule)
    layers = [
        {"layer": number, "name": name, **asdict(trend)}
        for number, (name, trend) in enumerate(zip(names, trends, strict=True), start=1)
    ]
    return {
        "form": settings.rho,
        "sigma": settings.sigma,
        "rho": rho,
        "selected": select_layers(trends, rule),
        "names": names,
        "rule": {**asdict(rule), "tasks_needed": TREND_TASKS, "layers": layers},
        **held_against(transfer, stages, trends),
    }


def layer_numbers(settings: LearngeneSettings, names: list[str]) -> list[int]:
    """The numbers of the inherited layers in a collective that ends with the layers ``names``;
    ``layers`` is not ``auto``.

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
