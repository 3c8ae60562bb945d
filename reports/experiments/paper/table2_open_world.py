"""Table 2: every method on five open-world classes, from images that a labeller named."""

from __future__ import annotations

from functools import partial
from statistics import fmean

from reports.experiments import base
from reports.experiments.side_by_side import side_by_side
from reports.figures.measured import draw_beside_paper
from reports.format import format_number
from reports.results import MAIN
from reports.statistics import difference_of_means, summarise
from reports.units import Measured
from reports.variants import RunGroup, Variant

COLUMNS = ((base.CIFAR,), (base.IMAGENET,))
ROWS = {  # method: a cell a column, each with the paper's ±
    "maml": ((34.07, 0.63), (36.51, 1.01)),
    "fomaml": ((25.40, 0.50), (32.82, 0.65)),
    "protonet": ((33.20, 0.48), (36.26, 0.32)),
    "proto_maml": ((39.09, 0.35), (32.57, 1.28)),
    "matchingnet": ((34.99, 0.34), (37.79, 0.39)),
    "finetune": ((38.72, 1.13), (40.72, 1.36)),
    "finetune_pp": ((38.83, 1.51), (37.08, 1.04)),
    "deepemd": ((39.85, 0.41), (40.21, 0.82)),
    MAIN: ((45.88, 2.99), (42.40, 2.35)),
}
CELLS = base.table_cells("table 2", COLUMNS, ROWS)
WHERE = "Experiments, table 2"
OVER_DEEPEMD = "lead over deepemd"
FLAGGED = "flagged, open-world less known images"


def rows(group: RunGroup) -> list[base.Row]:
    """Every method beside the paper's table, the learngene's leads, and what was flagged."""
    table = []
    for variant in group.variants:
        for name in variant.methods:
            mean, paper = variant.accuracy(name), CELLS.get((name, group.data))
            table.append(base.row(variant, name, "%", mean, paper=paper))
        table += base.lead_rows(variant) + _flagged(variant)
    return table


def _flagged(variant: Variant) -> list[base.Row]:
    """Shares of images that the collective calls unknown, over classes: of open-world classes, of
    known ones, and the difference, without which the named images are no finding of its. Nothing
    where shards are of all images (``labelled.draws=0``)."""
    if not all(run.get("labelled") for run in variant.runs):
        return []
    rows, shares = [], []
    for part, of in (("flagged", "open-world"), ("flagged_known", "known")):
        of_runs: dict[str, list[float]] = {}  # seeds may have drawn other classes
        for run in variant.runs:
            for name, share in run["labelled"][part].items():
                of_runs.setdefault(name, []).append(100 * share)
        by_class = sorted((fmean(found), name) for name, found in of_runs.items())
        shown = by_class if of == "open-world" else [by_class[0], by_class[-1]]
        note = ", ".join(f"{name} {format_number(share, 0)}" for share, name in shown)
        shares.append([share for share, _ in by_class])
        known = summarise(shares[-1])
        mean = Measured(known["mean"], known["ci95"], f"{len(by_class)} classes")
        rows.append(base.row(variant, f"flagged of {of} images", "%", mean, note=note))
    both = difference_of_means(*shares)
    counts = f"{len(shares[0])} and {len(shares[1])} classes"
    difference = Measured(both["mean"], both["ci95"], counts)
    note = "by class, Welch's interval; 0: the flags say nothing"
    return [*rows, base.row(variant, FLAGGED, "points", difference, note=note)]


CLAIMS = (
    base.Claim(
        "recognises",
        "the collective recognises unknown images: it flags more of them than of known ones",
        FLAGGED,
        said_in=WHERE,
    ),
    base.Claim(
        "random-flags",
        "control: random flags in place of the collective's are worse (labelled.flags)",
        base.OVER_RANDOM_FLAGS,
        said_in=WHERE,
        control=True,
    ),
    # The text says "a relative 6.03 %"; it is 45.88 - 39.85, a difference in points.
    base.Claim(
        "over-deepemd",
        "6.03 over DeepEMD on open-world classes",
        OVER_DEEPEMD,
        numbers={base.CIFAR: base.PaperNumber(6.03, None, WHERE)},
    ),
    base.Claim(
        "table-2",
        "table 2: ours on open-world classes, the best of nine",
        MAIN,
        tuple(f"lead over {name}" for name in base.OPPONENTS),
        {data: CELLS[MAIN, data] for (data,) in COLUMNS},
        unit="%",
    ),
)
EXPERIMENT = base.Experiment(
    "table2_open_world",
    rows=rows,
    figure=partial(draw_beside_paper, paper=lambda _, *column: CELLS.get(column)),
    claims=CLAIMS,
    overview=side_by_side,
)
