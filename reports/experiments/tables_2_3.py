"""Rows of the experiments that are tables of the paper, and of the frontier."""

from __future__ import annotations

from reports.experiments import paper
from reports.experiments.base import Row, methods, row, wins
from reports.experiments.paper import Quoted
from reports.figures.pareto import front, of_arms
from reports.format import p_value
from reports.results import MAIN, REFERENCE
from reports.statistics import holm, paired_gain
from reports.summary import answered
from reports.units import Values, accuracies, differences, seeds_of
from reports.variants import Arm, Gathered


def table3(gathered: Gathered) -> list[Row]:
    """Every method at every number of shots, beside the paper's table."""
    found = []
    for arm in gathered.arms:
        shots = arm.config("shots")
        for name in methods(arm):
            quoted = table3_of(arm, name, gathered.data)
            quantity = f"{shots}-shot, {name}"
            # A note where ours is not the paper's form of it: lambda on the plain Fisher.
            note = _retain(arm) if name == MAIN else ""
            measured = arm.measured(accuracies(name))
            found.append(
                row(arm, quantity, "%", measured, quoted=quoted, note=note, told=["shots"])
            )
        found += _leads(arm, f"{shots}-shot, ")
    return found


def table3_of(arm: Arm, method: str, data: str) -> Quoted | None:
    """The paper's cell for a method of an arm; the row of lambda = 5000 where that was asked for,
    on the plain Fisher as in the paper."""
    plain = not arm.config("retain.normalise")
    stiffness = arm.config("retain.ewc_lambda") if plain else None
    return paper.table3(method, data, arm.config("shots"), stiffness)


def table2(gathered: Gathered) -> list[Row]:
    """Every method on open-world classes, beside the paper's table."""
    found = []
    for arm in gathered.arms:
        for name in methods(arm):
            quoted = paper.table2(name, gathered.data)
            found.append(row(arm, name, "%", arm.measured(accuracies(name)), quoted=quoted))
        found += _leads(arm, "")
    return found


def frontier(gathered: Gathered) -> list[Row]:
    """For every point of the figure, by its name there: accuracy, a learngene's gain, what a client
    received, and whether it is on the Pareto front."""
    found: list[Row] = []
    points = of_arms(gathered)
    best, seen = front(list(dict.fromkeys(points.values()))), set()
    for arm in gathered.arms:
        for name in methods(arm):
            point = points.get((arm.label, name))
            if point is None or point in seen:  # nobody answered; scratch, which every run has
                continue
            seen.add(point)
            note = "on the Pareto front" if point in best else ""
            found.append(row(arm, point.label, "%", arm.measured(accuracies(name)), told=["*"]))
            if name == MAIN and REFERENCE in methods(arm):
                gain = arm.measured(differences(MAIN, REFERENCE))
                quantity = f"gain over scratch, {point.label}"
                found.append(row(arm, quantity, "points", gain, note=wins(arm), told=["*"]))
            received = arm.measured(_kilobytes(name))
            found.append(
                row(arm, f"received, {point.label}", "KB", received, note=note, told=["*"])
            )
    return found


def _kilobytes(method: str) -> Values:
    """What every client received for a method, 1,000 bytes."""
    return lambda run: {
        (*seeds_of(run), client["id"]): client["methods"][method]["bytes_down"] / 1000
        for client in answered(run)
        if method in client["methods"]
    }


def _leads(arm: Arm, prefix: str) -> list[Row]:
    """The learngene's lead over every other method; the note has Wilcoxon's p over the arm's
    clients (or draws), with Holm's correction over these methods, as a run's own table has it."""
    if MAIN not in methods(arm):
        return []
    leads = {name: differences(MAIN, name) for name in methods(arm) if name != MAIN}
    tested = [
        paired_gain(list(found), [0.0] * len(found))
        for found in (arm.pooled(lead).values() for lead in leads.values())
    ]
    corrected = holm([each["p_value"] for each in tested])
    return [
        row(arm, f"{prefix}lead over {name}", "points", arm.measured(lead), told=["shots"],
            note=f"p {p_value(p)}; ahead on {each['wins']} of {each['n']} {arm.unit}s")
        for (name, lead), each, p in zip(leads.items(), tested, corrected, strict=True)
    ]  # fmt: skip


def _retain(arm: Arm) -> str:
    normalised = arm.config("retain.normalise")
    return f"lambda {arm.config('retain.ewc_lambda'):g}, {'normalised' if normalised else 'plain'}"
