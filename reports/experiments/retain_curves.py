"""The retain loss on and off over images per class and rates of training (Eq. 8, 9)."""

from __future__ import annotations

from functools import partial

from reports.experiments.base import Experiment, Row, row
from reports.figures.measured import draw_sweep
from reports.format import p_value
from reports.results import MAIN
from reports.statistics import paired_gain
from reports.units import mean_by_task
from reports.variants import RunGroup, Variant

LAMBDA = "retain.ewc_lambda"


def rows(group: RunGroup) -> list[Row]:
    """A variant's accuracy and what training gained over what was inherited; then each lambda's
    lead over none on the same clients."""
    table = []
    for variant in group.variants:
        table.append(row(variant, MAIN, "%", variant.accuracy(MAIN)))
        curves = variant.curves(MAIN).dropna(axis="columns")
        if not curves.empty:  # where nobody answered
            gained = variant.mean_difference(100 * (curves.iloc[:, -1] - curves[0]))
            table.append(row(variant, "gained by training", "points", gained))
    for part in group.split_by_others(LAMBDA):
        off = [variant for variant in part.variants if variant.config(LAMBDA) == 0]
        on = [variant for variant in part.variants if variant.config(LAMBDA) > 0]
        table += [_lead(variant, without) for without in off for variant in on]
    return table


def _lead(variant: Variant, without: Variant) -> Row:
    lead = (variant.accuracies(MAIN) - without.accuracies(MAIN)).dropna()
    by_task = mean_by_task(lead).tolist()
    test = paired_gain(by_task, [0.0] * len(by_task))
    note = f"p {p_value(test['p_value'])}; ahead on {test['wins']} of {test['n']} {variant.unit}s"
    mean = variant.mean_difference(lead)
    both = (without, variant)
    return row(variant, "lead over no retain loss", "points", mean, note=note, variants=both)


EXPERIMENT = Experiment(
    "retain_curves", (MAIN,), rows, partial(draw_sweep, setting="shots", methods=(MAIN,))
)
