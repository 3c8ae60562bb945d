"""Figure 3: rho (Eq. 5) of every layer over the sequence of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from reports.collective import layer_names
from reports.experiments.base import Claim, Experiment, Row, collective_row, row
from reports.figures.rho import rho_heatmap
from reports.schema import Results
from reports.units import mean_over_runs
from reports.variants import RunGroup, Variant

WHERE = "Inheriting Learngene, figure 3"
SELECTS_TOP = "runs that select the top three"
PREDICTS = "rank correlation of trend of rho"
CLAIMS = (
    Claim(
        "criterion-top",
        "the criterion selects the top three layers",
        SELECTS_TOP,
        unit="share",
        said_in=WHERE,
    ),
    Claim(
        "criterion-carries",
        "what the criterion looks for (rho from large to steadily small) is where the "
        "meta-knowledge is: over layers, it goes with what new classes gain (transfer profile)",
        PREDICTS,
        unit="",
        said_in=WHERE,
    ),
)
ENDS = 3  # so many layers at either end have their rho in numbers: the paper inherits three


def rows(group: RunGroup) -> list[Row]:
    """rho of the front and of the top layers, early and late, what the criterion selects, and
    whether it tells what the transfer profile says."""
    table = []
    for variant in group.variants:
        runs = [run for run in variant.runs if run["criterion"]]
        names = layer_names(variant.runs[0])
        for layers in (slice(ENDS), slice(-ENDS, None)):
            lowest, *_, highest = names[layers]
            for part, late in (("first", False), ("last", True)):
                values = [(run, _rho(run, layers, late)) for run in runs]
                mean = mean_over_runs([(run, rho) for run, rho in values if rho is not None])
                quantity = f"rho of layers {lowest} to {highest}, {part} third of the tasks"
                table.append(row(variant, quantity, "share", mean))
        selected = sorted({tuple(run["criterion"]["selected"]) for run in runs})
        is_top = [(run, float(run["criterion"]["selected"] == top_layers(run))) for run in runs]
        shown = "; ".join(f"[{', '.join(names[n - 1] for n in layers)}]" for layers in selected)
        note = f"the paper selects the top three; selected here: {shown}"
        table.append(row(variant, SELECTS_TOP, "share", mean_over_runs(is_top), note=note))
        table += _correlations(variant, runs)
        table += _best_depth(variant, runs)
    return table


def _correlations(variant: Variant, runs: Sequence[Results]) -> list[Row]:
    """Rank correlation over layers of each measure of the criterion with the transfer profile."""
    found = [(run, run["criterion"].get("correlation") or {}) for run in runs]
    return [
        row(
            variant,
            f"rank correlation of {name}",
            "",
            mean_over_runs([(run, its[name]) for run, its in found if its.get(name) is not None]),
            note="over layers, with the transfer profile; 0: it says nothing",
        )
        for name in dict.fromkeys(name for _, its in found for name in its)
    ]


def _best_depth(variant: Variant, runs: Sequence[Results]) -> list[Row]:
    """How many layers the transfer profile finds best, and what they are worth."""
    runs = [run for run in runs if run.get("transfer")]
    profiles = [run["transfer"]["projected"] for run in runs]
    worth = [max(share for share in profile if share is not None) for profile in profiles]
    depths = [float(profile.index(best) + 1) for profile, best in zip(profiles, worth, strict=True)]
    return [
        *collective_row(variant, runs, "best depth of the transfer profile", "layers", depths),
        *collective_row(variant, runs, "unseen classes at that depth", "%", worth),
    ]


def top_layers(run: Results) -> list[int]:
    """The top three layers, counted from 1 in the collective at its end."""
    depth = len(layer_names(run))
    return list(range(depth - ENDS + 1, depth + 1))


def _rho(run: Results, layers: slice, late: bool) -> float | None:
    """Mean rho of some layers in a third of the tasks; None where none of them was there yet."""
    rho = run["criterion"]["rho"]
    third = max(1, len(rho) // 3)
    tasks = rho[-third:] if late else rho[:third]
    values = [value for task in tasks for value in task[layers] if value is not None]
    return fmean(values) if values else None


EXPERIMENT = Experiment(
    "fig3_criterion",
    rows=rows,
    figure=rho_heatmap,
    claims=CLAIMS,
    needs_collective=True,
    caption="Means over seeds; the table has the intervals.",
)
