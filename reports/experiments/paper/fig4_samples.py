"""Figure 4 (c, d): accuracy over images per class, and the images that the learngene saves."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reports.experiments.base import CIFAR, Claim, Experiment, PaperNumber, Row, gain_row, row
from reports.experiments.savings import reached_level, steps_to_accuracy, to_level
from reports.figures.measured import draw_sweep
from reports.results import MAIN, REFERENCE
from reports.units import mean_over_units
from reports.variants import RunGroup, Variant

if TYPE_CHECKING:
    import pandas as pd

LEVELS = (0.6, 0.7)
FEW = 25  # images a class: "such a small sample"
HIDDEN = ["shots"]  # quantities tell them


def rows(group: RunGroup) -> list[Row]:
    """Images to reach a level and images saved, along the shots of every client."""
    return [row for part in group.split_by_others("shots") for row in _rows(part)]


def _rows(group: RunGroup) -> list[Row]:
    table: list[Row] = []
    variants = group.variants
    along = partial(row, variants[-1], hide_settings=HIDDEN, variants=variants)
    # One number of images is no line: every client would need as many, and save none.
    for level in LEVELS if len(variants) > 1 else ():
        to = f"{100 * level:.0f} %"
        saving = to_level(along_shots(group, MAIN), along_shots(group, REFERENCE), level)
        first = along_shots(group, MAIN, untrained=True).reindex(saving.ours.index)
        at_once = steps_to_accuracy(first, level)
        untrained = reached_level(at_once.where(at_once <= saving.ours))
        for name, images in ((MAIN, saving.ours), (REFERENCE, saving.scratch)):
            mean, reached = mean_over_units(images), reached_level(images)
            quantity = f"images a class for {to}, {name}"
            inherited = untrained if name == MAIN else None
            table.append(along(quantity, "images", mean, reached=reached, untrained=inherited))
        both = partial(along, note=saving.note, reached=saving.reached, untrained=untrained)
        mean, share = map(variants[-1].mean_difference, (saving.saved, 100 * saving.shares))
        table.append(both(f"images a class saved to reach {to}", "images", mean))
        table.append(both(f"share of images saved to reach {to}", "%", share))
    for variant in variants:
        table.append(gain_row(variant, f"gain at {variant.config('shots')} images a class", HIDDEN))
    return table


def along_shots(group: RunGroup, method: str, untrained: bool = False) -> pd.DataFrame:
    """A client a row, accuracy over images per class, fractions; of each seed, the clients that
    answered in the most runs. ``untrained``: accuracies at epoch 0, missing where not recorded."""
    import pandas as pd

    def accuracies(variant: Variant) -> pd.Series:
        if untrained:
            return variant.curves(method).reindex(columns=[0])[0]
        return variant.final_by_client(method).accuracy

    curves = pd.concat(
        {v.config("shots"): accuracies(v) for v in group.variants}, axis=1
    ).sort_index()
    if untrained:
        return curves
    answers = curves.notna().sum(axis="columns")
    return curves[answers == answers.groupby(level=[0, 1]).transform("max")]


def figure(group: RunGroup, path: Path) -> Path:
    """A line a method, over shots."""
    return draw_sweep(group, path, "shots", (MAIN, REFERENCE), LEVELS)


def _number(value: float) -> dict[str, PaperNumber]:
    return {CIFAR: PaperNumber(value, None, "Experiments, figure 4 (c)")}


# Of images saved the share, too, says the direction: some client from scratch needs very many, and
# the interval of a mean over such numbers says nothing.
SHARE = "share of images saved to reach 60 %"
CLAIMS = (
    Claim(
        "samples-60",
        "25 images a class reach 60 % after 10 epochs",
        f"images a class for 60 %, {MAIN}",
        (SHARE,),
        _number(25),
        "images",
        "at most",
    ),
    Claim(
        "few-samples",
        "at least 20 points over scratch with so few images",
        f"gain at {FEW} images a class",
        numbers=_number(20),
        bound="at least",
    ),
    Claim(
        "saved-60",
        "2/3 of the images saved on the way to 60 %",
        SHARE,
        numbers=_number(200 / 3),
        unit="%",
    ),
    Claim(
        "saved-70",
        "100 images a class saved on the way to 70 %",
        "images a class saved to reach 70 %",
        numbers=_number(100),
        unit="images",
    ),
)
EXPERIMENT = Experiment("fig4_samples", (MAIN, REFERENCE), rows, figure, CLAIMS, whole_curves=True)
