"""Rows of the report's tables that are computed; the others are in the templates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from reports.figures.run import mean_curve
from reports.format import NONE, percent, value_text
from reports.results import MAIN
from reports.schema import Results
from reports.summary import answered

Row = tuple[str, ...]


def penalties(results: Results) -> list[Row]:
    """A row an epoch: the retain penalty, the loss beside it and the penalty's share, means over
    the clients that have a penalty; none where no client has."""
    clients = [c for c in answered(results) if "penalty_by_epoch" in c["methods"].get(MAIN, {})]
    losses = dict(mean_curve(clients, MAIN, "train_loss_by_epoch"))
    rows: list[Row] = []
    for epoch, summary in mean_curve(clients, MAIN, "penalty_by_epoch"):
        penalty, loss = summary["mean"], losses.get(epoch, {}).get("mean")
        share = percent(penalty / (penalty + loss)) if loss else NONE
        loss_text = NONE if loss is None else f"{loss:.4g}"
        rows.append((f"{epoch:g}", f"{penalty:.4g}", loss_text, share))
    return rows


def settings(config: Mapping[str, Any], prefix: str = "") -> Iterator[Row]:
    """Nested settings as the command line names them: ``retain.ewc_lambda``."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value_text(value)
