"""Table 3: the learngene and the eight opponents on novel classes, 5-way, 10 and 20 shots."""

from __future__ import annotations

from functools import partial

from reports.experiments import base
from reports.experiments.side_by_side import side_by_side
from reports.figures.measured import draw_beside_paper
from reports.results import MAIN
from reports.summary import multiply_adds
from reports.variants import RunGroup, Variant

COLUMNS = ((base.CIFAR, 10), (base.CIFAR, 20), (base.IMAGENET, 10), (base.IMAGENET, 20))
ROWS = {  # method: a cell a column, each with the paper's ±
    "maml": ((51.70, 1.75), (62.36, 2.88), (48.62, 3.10), (57.62, 2.42)),
    "fomaml": ((50.13, 3.73), (60.00, 3.31), (43.38, 2.47), (51.87, 1.96)),
    "protonet": ((56.40, 2.88), (61.02, 3.18), (49.91, 3.36), (58.62, 2.45)),
    "proto_maml": ((53.11, 1.25), (59.57, 1.34), (45.14, 2.52), (53.57, 1.34)),
    "matchingnet": ((56.71, 4.48), (60.98, 3.09), (51.82, 2.58), (59.78, 2.94)),
    "finetune": ((48.98, 3.86), (60.89, 3.77), (51.11, 3.36), (60.71, 2.32)),
    "finetune_pp": ((52.67, 4.02), (61.20, 3.29), (40.80, 2.92), (51.78, 2.81)),
    "deepemd": ((58.03, 1.85), (63.69, 2.05), (50.93, 2.78), (59.69, 2.47)),
    MAIN: ((58.86, 3.12), (64.24, 1.89), (52.96, 4.84), (60.86, 4.48)),  # lambda = 1000
    "lambda 5000": ((58.21, 2.58), (63.74, 2.46), (52.53, 4.74), (59.76, 5.41)),
}
CELLS = base.table_cells("table 3", COLUMNS, ROWS)


def cell_of(variant: Variant, method: str, data: str) -> base.PaperNumber | None:
    """The entry for a method of a variant, None where the paper has none; that of lambda = 5000
    where it was asked for, on the plain Fisher as in the paper."""
    plain = not variant.config("retain.normalise")
    if method == MAIN and plain and variant.config("retain.ewc_lambda") == 5000:
        method = "lambda 5000"
    return CELLS.get((method, data, variant.config("shots")))


def rows(group: RunGroup) -> list[base.Row]:
    """Every method at every number of shots beside the paper's table, and the learngene's leads.

    The note says whether a method is below scratch, and what it cost at the factory (T: 10^12).
    """
    table = []
    for variant in group.variants:
        prefix = f"{variant.config('shots')}-shot, "
        new_row = partial(base.row, variant, unit="%", hide_settings=["shots"])
        for name in variant.methods:
            mean, paper = variant.accuracy(name), cell_of(variant, name, group.data)
            own = _retain_note(variant) if name == MAIN else ""
            notes = own, base.rank_note(variant, name), _cost(variant, name)
            note = "; ".join(filter(None, notes))
            table.append(new_row(prefix + name, ours=mean, paper=paper, note=note))
        table += base.lead_rows(variant, prefix)
    return table


def _cost(variant: Variant, method: str) -> str:
    """Multiply-adds at the factory, of the first seed: the learngene's are the collective's."""
    cost = multiply_adds(variant.runs[0], method)
    return f"{cost / 1e12:.3g} T multiply-adds at the factory" if cost else ""


def _retain_note(variant: Variant) -> str:
    """Where ours may not be the paper's form of it: lambda on the plain Fisher."""
    fisher = "normalised" if variant.config("retain.normalise") else "plain"
    return f"lambda {variant.config('retain.ewc_lambda'):g}, {fisher}"


def _claim(shots: int) -> base.Claim:
    return base.Claim(
        f"table-3-{shots}",
        f"table 3: ours on novel classes, {shots} shots, the best of nine",
        f"{shots}-shot, {MAIN}",
        tuple(f"{shots}-shot, lead over {name}" for name in base.OPPONENTS),
        {data: CELLS[MAIN, data, shots] for data in (base.CIFAR, base.IMAGENET)},
        unit="%",
    )


EXPERIMENT = base.Experiment(
    "table3_novel",
    rows=rows,
    figure=partial(draw_beside_paper, paper=cell_of),
    claims=(_claim(10), _claim(20)),
    overview=side_by_side,
)
