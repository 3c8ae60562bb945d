"""Figure 6 (b): learngenes from the front, the middle and the top of the collective."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reports.experiments import base
from reports.experiments.paper.fig3_criterion import top_layers
from reports.figures import style
from reports.figures.measured import ACCURACY, EPOCHS, draw_curves, line, mean_curve
from reports.results import MAIN
from reports.units import Measured
from reports.variants import RunGroup, Variant, paired_difference

POSITION = ("learngene.layers", "individual.stem")  # where the run stood, and what is before it
FRONT = "the front alone over the top behind fresh layers"
LEAD = "top over the best other position"
WHERE = "Discussion, figure 6 (b)"
CLAIM = base.Claim(
    "top",
    "the top layers end 2 % above other positions",
    LEAD,
    numbers={data: base.PaperNumber(2, None, WHERE) for data in (base.CIFAR, base.IMAGENET)},
)


def rows(group: RunGroup) -> list[base.Row]:
    """Accuracy by position, the top's lead over the best of the others behind fresh layers, and
    what the front is ahead of the top by where nothing stands before it."""
    table = base.client_rows(group)
    for part in group.split_by_others(*POSITION):
        alone = [variant for variant in part.variants if is_alone(variant)]
        top = top_of(part.variants)
        others = [v for v in part.variants if v is not top and v not in alone]
        if top is None:
            continue
        for variant in alone:
            table.append(_lead_row(FRONT, variant, top, f"layers {layers_of(variant)}"))
        if others:
            best = max(others, key=lambda variant: variant.accuracy(MAIN).mean or 0.0)
            table.append(_lead_row(LEAD, top, best, f"the best other: layers {layers_of(best)}"))
    return table


def _lead_row(quantity: str, one: Variant, other: Variant, note: str) -> base.Row:
    lead = paired_difference(one, other, MAIN)
    both = (one, other)
    return base.row(one, quantity, "points", lead, note=note, hide_settings=POSITION, variants=both)


def figure(group: RunGroup, path: Path) -> Path:
    """Accuracy over epochs, a line a position; below it what the top is ahead of each other one by,
    paired by client: intervals of accuracies are of clients and hide that."""
    lines = []
    for variant in group.variants:
        layers, more = layers_of(variant), variant.label_without(POSITION)
        where = f"layers {layers[0]} to {layers[-1]}{' alone' if is_alone(variant) else ''}"
        lines.append((", ".join(filter(None, (where, more))), variant, MAIN))
    tops = {  # of the other variants, by label: the top of those that only the place tells apart
        variant.label: top
        for part in group.split_by_others(*POSITION)
        if (top := top_of(part.variants)) is not None
        for variant in part.variants
        if variant is not top
    }
    if not tops:
        return draw_curves(lines, path)
    canvas = style.new_figure(6.5)
    above, below = canvas.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    for number, (label, variant, name) in enumerate(lines):
        line(above, *mean_curve(100 * variant.curves(name)), label, number)
        if top := tops.get(variant.label):
            line(below, *lead_over_epochs(top, variant), label, number, share=False)
    above.set(ylabel=ACCURACY)
    below.axhline(0, color=style.GREY, lw=1)
    below.set(xlabel=EPOCHS, ylabel="top ahead (points)")
    style.whole_numbers(below.xaxis)
    return style.save_with_legend(canvas, above, path)


def lead_over_epochs(top: Variant, other: Variant) -> tuple[list[float], list[Measured]]:
    """What the top is ahead of another by on the same clients, percentage points, at the epochs
    that both recorded."""
    ours, theirs = top.curves(MAIN).align(other.curves(MAIN), join="inner")
    return mean_curve(100 * (ours - theirs))


def top_of(variants: Sequence[Variant]) -> Variant | None:
    """The variant that inherits from the top; None where there is none."""
    return next((v for v in variants if layers_of(v)[-1] == top_layers(v.runs[0])[-1]), None)


def is_alone(variant: Variant) -> bool:
    """Whether the variant begins with the collective's layer 1 and nothing before it."""
    gene = variant.runs[0]["learngene"]
    return bool(gene["layers"][0] == 1 and gene["stem"] == "none")


def layers_of(variant: Variant) -> list[int]:
    """The layers that the variant inherits."""
    return list(variant.runs[0]["learngene"]["layers"])


EXPERIMENT = base.Experiment(
    "fig6b_position", (MAIN,), rows, figure, (CLAIM,), needs_collective=True
)
