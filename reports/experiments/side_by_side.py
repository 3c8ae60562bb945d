"""Methods side by side: one row a method, for every variant its accuracy and the learngene's lead.

The rows of a table of the paper have one quantity each, which is what a claim is held against; with
twenty methods nobody sees from them who is ahead of whom.
"""

from __future__ import annotations

from learngene.methods.registry import base_of
from reports.experiments.base import lead_rows
from reports.experiments.table import format_measured
from reports.format import NONE, format_bytes
from reports.results import MAIN
from reports.variants import RunGroup, Variant


def side_by_side(group: RunGroup) -> list[tuple[str, ...]]:
    """Headings, then a row a method; methods that take the learngene's projection are left out."""
    columns = [_cells(variant) for variant in group.variants]
    settings = [variant.label_without(("methods",)) for variant in group.variants]
    labels = [f"{setting}: " if setting else "" for setting in settings]
    asked = [
        heading
        for label in labels
        for heading in (f"{label}accuracy, %", "the learngene's lead, points")
    ]
    return [
        ("method", "received", *asked),
        *(
            (
                name,
                format_bytes(_received(group, name)),
                *(cell for cells in columns for cell in cells.get(name, (NONE, NONE))),
            )
            for name in dict.fromkeys(name for cells in columns for name in cells)
            if name == base_of(name)
        ),
    ]


def _received(group: RunGroup, name: str) -> float | None:
    """Bytes a client, of the first variant that has the method."""
    counts = (variant.final_by_client(name).bytes for variant in group.variants)
    return next((float(each.mean()) for each in counts if len(each)), None)


def _cells(variant: Variant) -> dict[str, tuple[str, str]]:
    """By method its accuracy and lead, with p and on how many clients the learngene is ahead."""
    others = [name for name in variant.methods if name != MAIN]
    leads = {
        name: f"{format_measured(lead.ours, lead.unit)} ({lead.note})"
        for name, lead in zip(others, lead_rows(variant), strict=False)  # none without a learngene
    }
    return {
        name: (format_measured(variant.accuracy(name), "%"), leads.get(name, NONE))
        for name in variant.methods
    }
