"""The judgement criterion: how much of a layer still changes (Eq. 4-5), and what it selects.

The paper selects layers by eye, from figure 3; ``TrendRule`` puts its words into numbers.

**What is compared with sigma.** A plain gradient depends on how a function is written down. Where a
channel is split into n equal ones, the gradients of their filters and of the next layer's weights
are 1/sqrt(n) of what they were (``networks.growth``; 1/n if filters keep their length), so the
paper's rho falls in the task in which a layer is widened, though the network says what it said; and
in front of BatchNorm filters twice as long have gradients half as large.
``learngene.rho=invariant`` is free of both: it takes the gradient by a weight in units of the
layer's weights (their root mean square), times their number N,

    |N rms(w) dL/dw| > sigma,

so sigma is a loss: that of the layer, to first order, if all its weights were like this one and
moved by their size. It is the gradient on the sphere of filters of one length (Salimans and Kingma
2016), at a scale that does not depend on width. Widening every channel alike, in equal parts,
leaves it as it is, in random parts nearly so (rho within 0.02; some channels only, 0.03).
``paper`` compares the plain gradient, to the letter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from learngene.networks.collective import Collective

SIGMA = {"invariant": 1.0, "paper": 1e-3}  # what learngene.sigma=null comes to


def rho(gradient: Tensor, sigma: float) -> Tensor:
    """Share of a layer's parameters whose absolute gradient exceeds ``sigma`` (Eq. 4-5), 0..1."""
    return (gradient.abs() > sigma).float().mean()


def in_units_of(weight: Tensor, gradient: Tensor) -> Tensor:
    """``gradient`` by ``weight``, any shape, in nats a layer: N rms(w) dL/dw (see the module)."""
    return gradient * (weight.norm() * math.sqrt(weight.numel()))


class Criterion:
    """Mean rho of every conv layer over the training steps of one task.

    ``observe`` is called after the backward pass. ``form`` is one of ``SIGMA``'s. Sums and their
    count are kept on the collective's device: no step waits for it.
    """

    def __init__(
        self, form: str, sigma: float, layers: int, device: torch.device | str = "cpu"
    ) -> None:
        self.form, self.sigma = form, sigma
        self._sum = torch.zeros(layers, device=device)
        self._steps = torch.zeros((), device=device)

    @torch.no_grad()
    def observe(self, collective: Collective) -> None:
        """Count a step: weights and gradients of every conv layer."""
        shares = []
        for unit in collective.units:
            weight, gradient = unit.conv.weight, unit.conv.weight.grad
            assert gradient is not None, "rho is observed after the backward pass"
            compared = in_units_of(weight, gradient) if self.form == "invariant" else gradient
            shares.append(rho(compared, self.sigma))
        self._sum += torch.stack(shares)
        self._steps += 1

    def result(self) -> list[float]:
        """rho of every layer, lowest first, each 0..1."""
        if not self._steps:
            raise ValueError("rho of a task without a training step is not defined")
        return (self._sum / self._steps).tolist()


@dataclass(frozen=True)
class TrendRule:
    """The paper's "from large to steadily small", as a statistic of one layer's rho over tasks.

    With E the mean of rho over the first third of the layer's tasks, L the mean and S the standard
    deviation over the last third (each third at least one task):

        fall = 1 - L / E        unsteadiness = S / E        trend = fall - unsteadiness

    It separates the paper's three scenarios. (1) Always close to 0: E is below ``large``, and the
    trend counts as 0. (2) Always large: L is near E, the fall near 0. (3) Large, then small and
    steady: the fall is near 1, the unsteadiness near 0. A layer speaks for itself by how far its
    trend exceeds ``bar``. A trend needs ``TREND_TASKS`` tasks; with fewer it is 0 for every layer.
    """

    longest: int = 3  # layers that may be selected at most (the paper: k = 3)
    bar: float = 0.5  # a layer above this trend speaks for being selected, one below against
    large: float = 0.1  # an early rho below this is not large


TREND_TASKS = 3


@dataclass(frozen=True)
class Trend:
    """The rule's statistic for one layer; see ``TrendRule``."""

    tasks: int  # in which the layer was there
    early: float
    late: float
    fall: float
    unsteadiness: float
    trend: float


def layer_trend(values: Sequence[float], rule: TrendRule) -> Trend:
    """The statistic of one layer from its rho, task by task (at least one).

    Never NaN: where E is not large, and with fewer than ``TREND_TASKS`` tasks, fall, unsteadiness
    and trend are 0.
    """
    series = np.asarray(values, dtype=float)
    third = max(1, len(series) // 3)
    early, late = float(series[:third].mean()), float(series[-third:].mean())
    if len(series) < TREND_TASKS or early < rule.large or early == 0:
        return Trend(len(series), early, late, 0.0, 0.0, 0.0)
    fall, unsteadiness = 1 - late / early, float(series[-third:].std()) / early
    return Trend(len(series), early, late, fall, unsteadiness, fall - unsteadiness)


def layer_trends(rho_by_task: Sequence[Sequence[float | None]], rule: TrendRule) -> list[Trend]:
    """The statistic of every layer. ``rho_by_task``: by task and layer, None before a layer was."""
    return [
        layer_trend([value for value in layer if value is not None], rule)
        for layer in zip(*rho_by_task, strict=True)
    ]


def select_layers(trends: Sequence[Trend], rule: TrendRule) -> list[int]:
    """The consecutive layers, counted from 1, that follow the rule best; empty if none does.

    Of all runs of at most ``rule.longest`` layers, the one in which the trends exceed ``rule.bar``
    by the largest sum. A layer below the bar counts against its run, so a run is never longer than
    its layers warrant. Of equal runs the deepest one is taken, as the paper expects the knowledge
    of all tasks at the top.
    """
    best, chosen = 0.0, []
    for last in range(len(trends), 0, -1):
        total = 0.0
        for first in range(last, max(0, last - rule.longest), -1):
            total += trends[first - 1].trend - rule.bar
            if total > best + 1e-12:
                best, chosen = total, list(range(first, last + 1))
    return chosen


def align(
    rows: Sequence[Sequence[float | None]], names: Sequence[Sequence[str]]
) -> list[list[float | None]]:
    """Rows of a number a layer, of a collective that deepens, brought to the last row's layers.

    Args:
        rows: by task, each of that task's layers.
        names: the layers' names by task; a later task has all names of an earlier one.

    Returns:
        (tasks, layers of the last task); None where a layer was not yet there.
    """
    by_name = [dict(zip(its, row, strict=True)) for row, its in zip(rows, names, strict=True)]
    return [[row.get(name) for name in names[-1]] for row in by_name]
