"""Figure 4 (a, b): accuracy over epochs, and the epochs that the learngene saves."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from reports.experiments.base import CIFAR, Claim, Experiment, PaperNumber, Row, client_rows, row
from reports.experiments.savings import reached_level, to_converge, to_scratch_final
from reports.figures.measured import draw_curves
from reports.results import MAIN, REFERENCE
from reports.units import mean_over_units
from reports.variants import RunGroup

WHERE = "Experiments, figure 4 (a)"
EPOCHS = {MAIN: PaperNumber(10.0, None, WHERE), REFERENCE: PaperNumber(40.0, None, WHERE)}
CLAIM = Claim(
    "epochs",
    "10 epochs to adapt, 40 from scratch: 30 saved",
    "epochs saved",
    numbers={CIFAR: PaperNumber(30, None, WHERE)},
    unit="epochs",
)


def rows(group: RunGroup) -> list[Row]:
    """Accuracies at the end; epochs until each variant's own curve has converged, and how many
    fewer they are with the learngene (the paper's 10 against 40); epochs to where scratch ends."""
    table = client_rows(group)
    for variant in group.variants:
        ours, scratch = variant.curves(MAIN), variant.curves(REFERENCE)
        saving = to_converge(ours, scratch)
        note = "epochs to come within a point of the own last accuracy"
        for name, epochs in ((MAIN, saving.ours), (REFERENCE, saving.scratch)):
            paper = EPOCHS[name] if group.data == CIFAR else None
            quantity, mean = f"epochs to converge, {name}", mean_over_units(epochs)
            table.append(row(variant, quantity, "epochs", mean, paper=paper, note=note))
        there = to_scratch_final(ours, scratch).ours
        at_once = reached_level(there.where(there == 0))
        saved = partial(row, note=saving.note, reached=saving.reached, untrained=at_once)
        mean = variant.mean_difference(saving.saved)
        table.append(saved(variant, "epochs saved", "epochs", mean))
        note = f"{at_once.clients} of {at_once.of} clients are there before any training"
        quantity, mean = f"epochs to where scratch ends, {MAIN}", mean_over_units(there)
        table.append(
            row(variant, quantity, "epochs", mean, note=note, reached=reached_level(there))
        )
    return table


def figure(group: RunGroup, path: Path) -> Path:
    """A line a method."""
    several = len(group.variants) > 1
    return draw_curves(
        [
            (f"{name}, {variant.label}" if several else name, variant, name)
            for variant in group.variants
            for name in variant.methods
        ],
        path,
    )


EXPERIMENT = Experiment("fig4_curves", (MAIN, REFERENCE), rows, figure, (CLAIM,), whole_curves=True)
