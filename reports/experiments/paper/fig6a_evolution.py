"""Figure 6 (a): accuracy of the same clients by what the collective knew."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from reports.experiments.base import Claim, Experiment, Row, row
from reports.figures import style
from reports.figures.measured import ACCURACY, line
from reports.results import MAIN, REFERENCE
from reports.statistics import wider
from reports.units import Measured, mean_over_units
from reports.variants import RunGroup, Variant

if TYPE_CHECKING:
    import pandas as pd


LEAST_STEP, FIRST_GAIN = "least step from point to point", "gain over scratch at the first point"
CLAIM = Claim(
    "improves",
    "the individual improves as the collective evolves: at every point, and above scratch "
    "from the first",
    LEAST_STEP,
    (LEAST_STEP, FIRST_GAIN),
    said_in="Discussion, figure 6 (a)",
)


def rows(group: RunGroup) -> list[Row]:
    """Accuracy at every point of the evolution, the least that a point adds to the one before it,
    what the last adds to the first, and what the first is ahead of scratch by."""
    table = []
    for variant in group.variants:
        rounds = rounds_of(variant)
        for known, values in rounds:
            quantity = f"accuracy at {known} classes"
            table.append(row(variant, quantity, "%", mean_over_units(values)))
        if rounds:
            change = variant.mean_difference(rounds[-1][1] - rounds[0][1])
            note = "the paper: continually improves, no number"
            quantity = "last point less the first"
            table.append(row(variant, quantity, "points", change, note=note))
        if len(rounds) > 1:
            steps = {
                known: variant.mean_difference(values - before)
                for (_, before), (known, values) in pairwise(rounds)
            }
            known, least = min(steps.items(), key=lambda step: _lower_end(step[1]))
            table.append(row(variant, LEAST_STEP, "points", least, note=f"to {known} classes"))
        if rounds and REFERENCE in variant.methods:
            scratch = 100 * variant.final_by_client(REFERENCE).accuracy
            first = variant.mean_difference(rounds[0][1] - scratch)
            table.append(row(variant, FIRST_GAIN, "points", first))
        if REFERENCE in variant.methods:
            mean = variant.accuracy(REFERENCE)
            table.append(row(variant, REFERENCE, "%", mean))
    return table


def _lower_end(step: Measured) -> float:
    """Of the wider of its intervals: the step that is the least certain to be one."""
    return (step.mean or 0.0) - wider(step.ci95, step.ci95_classes)


def figure(group: RunGroup, path: Path) -> Path:
    """A line a variant; scratch does not change with the collective and is a level."""
    canvas, axes = style.new_axes(4.0)
    for number, variant in enumerate(group.variants):
        rounds = rounds_of(variant)
        if not rounds:
            raise style.NoDataError("a run has one round; rounds=R reconstructs at R points")
        known = [classes for classes, _ in rounds]
        means = [mean_over_units(values) for _, values in rounds]
        line(axes, known, means, variant.label or MAIN, 2 * number)
        if REFERENCE in variant.methods:
            level = variant.accuracy(REFERENCE).mean
            label = REFERENCE if number == 0 else None
            axes.axhline(level or 0.0, color=style.LINE_COLOURS[1], ls="--", lw=1.6, label=label)
        axes.set_xticks(known)
    axes.set(xlabel="classes the collective knows", ylabel=ACCURACY)
    return style.save_with_legend(canvas, axes, path)


def rounds_of(variant: Variant) -> list[tuple[int, pd.Series]]:
    """Of each round the classes that the collective knew, and the learngene's accuracy by client,
    percent, over the runs that have rounds. The last round's clients are the run's; of those before
    it there are as many as answered to the end, whose classes are told."""
    runs = [run for run in variant.runs if run.get("rounds")]
    rounds = []
    for number, point in enumerate(runs[0]["rounds"] if runs else ()):
        then = [{**r, "clients": r["rounds"][number].get("clients") or r["clients"]} for r in runs]
        accuracies = 100 * Variant("", {}, tuple(then)).final_by_client(MAIN).accuracy
        rounds.append((point["known_classes"], accuracies))
    there = rounds[-1][1].index if rounds else ()
    return [(known, values[values.index.isin(there)]) for known, values in rounds]


EXPERIMENT = Experiment("fig6a_evolution", (MAIN,), rows, figure, (CLAIM,), needs_collective=True)
