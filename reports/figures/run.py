"""The figures of a run, drawn from ``results.json`` alone.

Rule for absent data: a figure whose data the results do not hold is not drawn, its old PNG is
removed (it would show another run), and the reason is handed to the report, which prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

from reports.figures.collective import collective, continual, criterion, open_world
from reports.figures.gradcam import gradcam
from reports.figures.over_tasks import cycle
from reports.figures.pareto import frontier
from reports.figures.style import (
    GREY,
    NoDataError,
    legend_above,
    method_style,
    new_figure,
    save,
    styled,
)
from reports.format import percent, rounded, size
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.statistics import summarise
from reports.summary import answered, method_names

BANDS = 4  # methods up to which each has its band
LOG_ABOVE = 50  # ratio of the largest to the smallest positive number of bytes


def draw_figures(results: Results, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """Draws every figure whose data is there.

    Returns:
        name to path of what was drawn, and name to reason of what was not.
    """
    drawn, skipped = {}, {}
    for name, draw in FIGURES.items():
        try:
            drawn[name] = draw(results, folder)
        except NoDataError as reason:
            skipped[name] = str(reason)
            (folder / f"{name}.png").unlink(missing_ok=True)
    return drawn, skipped


def mean_curve(
    clients: list[Mapping[str, Any]], name: str, field: str = "accuracy_by_epoch"
) -> list[tuple[float, dict[str, Any]]]:
    """Epoch and summary over clients, at the epochs that every client recorded.

    Only those: with some clients missing at an epoch, the line would move with its population.
    """
    curves = [dict(client["methods"][name].get(field) or []) for client in clients]
    values = [{epoch: y for epoch, y in curve.items() if y is not None} for curve in curves]
    epochs = set.intersection(*(set(curve) for curve in values)) if values else set()
    return [(epoch, summarise([curve[epoch] for curve in values])) for epoch in sorted(epochs)]


@styled
def accuracy_over_epochs(results: Results, folder: Path) -> Path:
    """Mean test accuracy by epoch with its 95 % band, a line per method (the paper's figure 4)."""
    clients, names = _clients(results), method_names(results)
    crowded = len(names) > BANDS  # bands would then hide each other
    figure = new_figure(5.0 if crowded else 3.5)
    axes = figure.add_subplot()
    for name, style in method_style(names).items():
        points = mean_curve(clients, name)
        epochs = [epoch for epoch, _ in points]
        mean = 100 * np.array([point["mean"] for _, point in points])
        half = 100 * np.array([point["ci95"] or 0.0 for _, point in points])
        thin = crowded and name not in (MAIN, REFERENCE)
        axes.plot(epochs, mean, lw=1 if thin else 2, ms=5, label=name, **style)
        if len(epochs) == 1:  # answers without training: one point, its level drawn on
            axes.axhline(mean[0], color=style["color"], lw=0.8, ls=":")
        if not thin:
            axes.fill_between(
                epochs, mean - half, mean + half, color=style["color"], alpha=0.2, lw=0
            )
    chance = 100 * float(np.mean([1 / len(client["classes"]) for client in clients]))
    axes.axhline(chance, color=GREY, ls="--", lw=1.2, label="chance")
    axes.set(xlabel="epochs on the client's shard", ylabel="test accuracy (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, min(chance - 5, low)), high if high < 85 else 101)
    legend_above(figure, axes)
    return save(figure, folder / "accuracy_over_epochs.png")


@styled
def clients_paired(results: Results, folder: Path) -> Path:
    """Each client from its scratch accuracy to its learngene accuracy, the largest gain on top."""
    if results["summary"]["gain"] is None:
        raise NoDataError(f"the run did not compare {MAIN} with {REFERENCE}")
    pairs = [
        (client["id"], *(100 * client["methods"][m]["accuracy"] for m in (REFERENCE, MAIN)))
        for client in _clients(results)
    ]
    pairs.sort(key=lambda pair: (pair[2] - pair[1], -pair[0]))
    ids, scratch, ours = (np.array(column) for column in zip(*pairs, strict=True))
    rows = np.arange(len(ids))
    figure = new_figure(float(np.clip(1.3 + 0.24 * len(ids), 2.2, 9.0)))
    axes = figure.add_subplot()
    style = method_style(method_names(results))
    # A gain's line is solid and a loss's dotted: the direction is not left to colour alone.
    for better, dashes in ((ours >= scratch, "-"), (ours < scratch, ":")):
        axes.hlines(rows[better], scratch[better], ours[better], color=GREY, lw=1.6, ls=dashes)
    few = len(ids) <= 40
    for accuracy, name in ((scratch, REFERENCE), (ours, MAIN)):
        axes.plot(accuracy, rows, ls="", ms=7 if few else 4, label=name, **style[name])
    if few:  # beyond that the labels touch
        axes.set_yticks(rows, ids)
    else:
        axes.set_yticks([])
    axes.set(
        xlabel="test accuracy at the last epoch (%)", ylabel="client" + ", by gain" * (len(ids) > 4)
    )
    axes.set_ylim(-0.8, len(ids) - 0.2)
    legend_above(figure, axes)
    return save(figure, folder / "clients_paired.png")


@styled
def bytes_received(results: Results, folder: Path) -> Path:
    """What a client receives per method, beside the accuracy that it buys."""
    clients, names = _clients(results), method_names(results)
    received = np.array(
        [np.mean([client["methods"][name]["bytes_down"] for client in clients]) for name in names]
    )
    positive = received[received > 0]
    log = bool(len(positive)) and positive.max() / positive.min() > LOG_ABOVE
    figure = new_figure(1.7 + 0.5 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    rows, colours = np.arange(len(names)), [s["color"] for s in method_style(names).values()]
    left.barh(rows, received, color=colours, height=0.6)
    top = float(positive.max()) if len(positive) else 1.0
    if log:  # bars then start a decade below the smallest, and zero has no bar
        left.set_xscale("log")
        left.set_xlim(positive.min() / 10, top * (top / positive.min()) ** 0.55)
        exponents = range(int(np.floor(np.log10(positive.min() / 10))), int(np.log10(top)) + 2)
        powers = [10.0**exponent for exponent in exponents]
        visible = [x for x in powers if left.get_xlim()[0] <= x <= left.get_xlim()[1]]
        left.xaxis.set_major_locator(FixedLocator(visible[:: 1 + len(visible) // 5]))
        left.xaxis.set_major_formatter(lambda x, _: size(x).replace(".0 ", " "))
        left.xaxis.set_minor_locator(NullLocator())
        left.xaxis.set_minor_formatter(NullFormatter())
    else:
        left.set_xlim(0, 1.5 * top)
        left.xaxis.set_major_locator(MaxNLocator(3))
        left.xaxis.set_major_formatter(lambda x, _: size(x))
    start = left.get_xlim()[0]
    for row, count in zip(rows, received, strict=True):
        left.annotate(
            size(count), (max(count, start), row), (4, 0), textcoords="offset points", va="center"
        )
    left.set_yticks(rows, names)
    left.grid(visible=False, axis="y")
    left.set_xlabel(f"bytes received per client{', log scale' if log else ''}", fontsize=10)
    left.invert_yaxis()
    summary = [results["summary"][name] for name in names]
    means = [100 * s["mean"] for s in summary]
    half = [100 * (s["ci95"] or 0) for s in summary]
    right.barh(
        rows, means, xerr=half, color=colours, height=0.6, error_kw={"lw": 1.2, "capsize": 3}
    )
    for row, s, h in zip(rows, summary, half, strict=True):
        at = (100 * s["mean"] + h, row)
        right.annotate(percent(s["mean"]), at, (5, 0), textcoords="offset points", va="center")
    right.grid(visible=False, axis="y")
    right.tick_params(axis="y", length=0)
    right.set_xlim(0, 140)
    right.set_xticks([0, 50, 100])
    right.set_xlabel("test accuracy (%), 95 % interval", fontsize=10)
    return save(figure, folder / "bytes.png")


@styled
def evolution(results: Results, folder: Path) -> Path:
    """Accuracy of the same clients by how much the collective knew (the paper's figure 6a)."""
    rounds = results.get("rounds") or []
    if len(rounds) < 2:
        raise NoDataError("the run has one round; rounds=R reconstructs at R points")
    figure = new_figure(3.6)
    axes = figure.add_subplot()
    known = [each["known_classes"] for each in rounds]
    summary = [each["summary"][MAIN] for each in rounds]
    mean = np.array([np.nan if s["mean"] is None else 100 * s["mean"] for s in summary])
    half = np.array([100 * (s["ci95"] or 0.0) for s in summary])
    style = method_style(method_names(results))
    axes.plot(known, mean, lw=2, ms=6, label=MAIN, **style[MAIN])
    axes.fill_between(known, mean - half, mean + half, color=style[MAIN]["color"], alpha=0.2, lw=0)
    reference = (results["summary"].get(REFERENCE) or {}).get("mean")
    if reference is not None:  # scratch does not change with the collective
        level = 100 * reference
        colour = style[REFERENCE]["color"]
        axes.axhline(level, color=colour, ls="--", lw=1.6, label=f"{REFERENCE}, {rounded(level)} %")
    axes.set_xticks(known)
    axes.set(xlabel="classes the collective knows", ylabel="clients' test accuracy (%)")
    legend_above(figure, axes)
    return save(figure, folder / "evolution.png")


def _clients(results: Results) -> list[Mapping[str, Any]]:
    clients = answered(results)
    if not clients:
        raise NoDataError("no client answered")
    return clients


FIGURES = {
    "accuracy_over_epochs": accuracy_over_epochs,
    "clients_paired": clients_paired,
    "evolution": evolution,
    "criterion": criterion,
    "collective": collective,
    "continual": continual,
    "bytes": bytes_received,
    "frontier": frontier,
    "open_world": open_world,
    "cycle": cycle,
    "gradcam": gradcam,
}
