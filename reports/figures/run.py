"""The figures of a run, drawn from ``results.json`` alone.

Rule for absent data: a figure whose data the results do not hold is not drawn, its old PNG is
removed (it would show another run), and the reason is handed to the report, which prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, NullLocator

from reports.experiments.paper import fig6a_evolution
from reports.figures import style
from reports.figures.collective import continual, criterion, open_world
from reports.figures.gradcam import gradcam
from reports.figures.over_tasks import accuracy_over_tasks, cycles
from reports.figures.pareto import frontier
from reports.figures.transfer import transfer_profile
from reports.format import format_bytes, percent
from reports.results import MAIN, REFERENCE
from reports.schema import Results
from reports.statistics import summarise
from reports.summary import MOST_LINES, answered, client_mean, method_names
from reports.variants import RunGroup, Variant

BANDS = 4  # methods up to which each has its band
LOG_ABOVE = 50  # ratio of the largest to the smallest positive number of bytes
MOST_POWERS = 3  # of ten that are named on half a figure: a fourth would touch its neighbours


def draw_figures(
    results: Results,
    folder: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, str]:
    """Draw every figure whose data is there as ``folder/NAME.png``; ``progress`` is told of each.
    Returns by name the reason why it was not drawn, empty where it was."""
    reasons = {}
    for done, (name, draw) in enumerate(FIGURES.items()):
        progress("report, figures", done, len(FIGURES))
        reasons[name] = style.reason_undrawn(draw, results, folder / f"{name}.png")
    return reasons


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


@style.styled
def accuracy_over_epochs(results: Results, path: Path) -> Path:
    """Mean test accuracy by epoch with its 95 % band, a line per method (the paper's figure 4)."""
    clients, names = _clients(results), method_names(results)
    crowded = len(names) > BANDS  # bands would then hide each other
    figure, axes = style.new_axes(5.0 if crowded else 3.5)
    for name, look in style.method_style(names).items():
        points = mean_curve(clients, name)
        epochs = [epoch for epoch, _ in points]
        mean, half = _percent([summary for _, summary in points])
        thin = crowded and name not in (MAIN, REFERENCE)
        axes.plot(epochs, mean, lw=1 if thin else 2, ms=5, label=name, **look)
        if len(epochs) == 1:  # answers without training: one point, its level drawn on
            axes.axhline(mean[0], color=look["color"], lw=0.8, ls=":")
        if not thin:
            style.band(axes, epochs, mean, half, look["color"])
    ways = [len(client["classes"]) for client in clients]
    chance = 100 * float(np.mean([1 / each for each in ways]))
    label = "chance" if len(set(ways)) == 1 else "chance, mean over clients"
    axes.axhline(chance, color=style.GREY, ls="--", lw=1.2, label=label)
    axes.set(xlabel="epochs on the client's shard", ylabel="test accuracy (%)")
    style.whole_numbers(axes.xaxis, steps=[1, 2, 5, 10])
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, min(chance - 5, low)), high if high < 85 else 101)
    return style.save_with_legend(figure, axes, path)


@style.styled
def clients_paired(results: Results, path: Path) -> Path:
    """Each client from its scratch accuracy to its learngene accuracy, the largest gain on top."""
    if results["summary"]["gain"] is None:
        raise style.NoDataError(f"the run did not compare {MAIN} with {REFERENCE}")
    pairs = [
        (client["id"], *(100 * client["methods"][m]["accuracy"] for m in (REFERENCE, MAIN)))
        for client in _clients(results)
    ]
    pairs.sort(key=lambda pair: (pair[2] - pair[1], -pair[0]))
    ids, scratch, ours = (np.array(column) for column in zip(*pairs, strict=True))
    if len(ids) > MOST_LINES:
        return _gain_histogram(ours - scratch, results["summary"]["gain"], path)
    rows = np.arange(len(ids))
    figure, axes = style.new_axes(float(np.clip(1.3 + 0.24 * len(ids), 2.2, 9.0)))
    looks = style.method_style(method_names(results))
    # A gain's line is solid and a loss's dotted: the direction is not left to colour alone.
    for better, dashes in ((ours >= scratch, "-"), (ours < scratch, ":")):
        axes.hlines(
            rows[better], scratch[better], ours[better], color=style.GREY, lw=1.6, ls=dashes
        )
    few = len(ids) <= 40
    for accuracy, name in ((scratch, REFERENCE), (ours, MAIN)):
        axes.plot(accuracy, rows, ls="", ms=7 if few else 4, label=name, **looks[name])
    axes.set_yticks(rows if few else [], ids if few else [])  # beyond that the labels touch
    axes.set(xlabel="test accuracy at the last epoch (%)")
    axes.set(ylabel="client, by gain" if len(ids) > 4 else "client")
    axes.set_ylim(-0.8, len(ids) - 0.2)
    return style.save_with_legend(figure, axes, path)


def _gain_histogram(gains: style.Floats, summary: Mapping[str, Any], path: Path) -> Path:
    """Clients by gain, percentage points, with the mean and its interval.

    Gains are multiples of one test image: bars are whole multiples of the smallest difference, so
    that none holds more of the possible values than its neighbour, and one of them is around zero.
    """
    possible = np.diff(np.unique(np.round(gains, 9)))
    step = float(possible.min()) if len(possible) else 1.0
    edges = np.histogram_bin_edges(gains, "auto")
    width = step * max(1, round((edges[1] - edges[0]) / step))
    first, last = np.floor(gains.min() / width + 0.5), np.floor(gains.max() / width + 0.5)
    figure, axes = style.new_axes(3.5)
    counts, edges = np.histogram(gains, width * (np.arange(first, last + 2) - 0.5))
    axes.stairs(counts, edges, fill=True, color=style.BLUE, alpha=0.35)
    axes.stairs(counts, edges, color=style.BLUE, lw=1.2)
    axes.axvline(0, color="black", lw=1.2, ls=":", label="no difference")
    mean, half = 100 * summary["mean"], 100 * (summary["ci95"] or 0.0)
    axes.axvline(mean, color=style.VERMILION, lw=1.8, label="mean, 95 % interval")
    axes.axvspan(mean - half, mean + half, color=style.VERMILION, alpha=0.2, lw=0)
    axes.set(xlabel=f"gain of {MAIN} over {REFERENCE} (points)", ylabel="clients", ylim=(0, None))
    return style.save_with_legend(figure, axes, path)


@style.styled
def bytes_received(results: Results, path: Path) -> Path:
    """What a client receives per method, beside the accuracy that it buys."""
    _clients(results)
    names = method_names(results)
    received = np.array([client_mean(results, name, "bytes_down") for name in names])
    positive = received[received > 0]
    log = bool(len(positive)) and positive.max() / positive.min() > LOG_ABOVE
    figure = style.new_figure(1.7 + 0.5 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    rows, colours = np.arange(len(names)), [s["color"] for s in style.method_style(names).values()]
    left.barh(rows, received, color=colours, height=0.6)
    top = float(positive.max()) if len(positive) else 1.0
    if log:  # bars then start a decade below the smallest, and zero has no bar
        left.set_xscale("log")
        left.set_xlim(positive.min() / 10, top * (top / positive.min()) ** 0.55)
        exponents = range(int(np.floor(np.log10(positive.min() / 10))), int(np.log10(top)) + 2)
        powers = [10.0**exponent for exponent in exponents]
        visible = [x for x in powers if left.get_xlim()[0] <= x <= left.get_xlim()[1]]
        every = 1 + (len(visible) - 1) // MOST_POWERS
        left.xaxis.set_major_locator(FixedLocator(visible[::every]))
        left.xaxis.set_major_formatter(style.size_tick)
        left.xaxis.set_minor_locator(NullLocator())
        left.xaxis.set_minor_formatter(NullFormatter())
    else:
        left.set_xlim(0, 1.5 * top)
        left.xaxis.set_major_locator(MaxNLocator(3))
        left.xaxis.set_major_formatter(lambda x, _: format_bytes(x))
    start = left.get_xlim()[0]
    beside: style.Look = {"textcoords": "offset points", "va": "center"}
    for row, count in zip(rows, received, strict=True):
        left.annotate(format_bytes(count), (max(count, start), row), (4, 0), **beside)
    left.set_yticks(rows, names)
    left.grid(visible=False, axis="y")
    left.set_xlabel(f"bytes received per client{', log scale' if log else ''}", fontsize=10)
    left.invert_yaxis()
    mean, half = _percent([results["summary"][name] for name in names])
    error = {"lw": 1.2, "capsize": 3}
    right.barh(rows, mean, xerr=half, color=colours, height=0.6, error_kw=error)
    for row, name, end in zip(rows, names, mean + half, strict=True):
        right.annotate(percent(results["summary"][name]["mean"]), (end, row), (5, 0), **beside)
    right.grid(visible=False, axis="y")
    right.tick_params(axis="y", length=0)
    right.set_xlim(0, 140)
    right.set_xticks([0, 50, 100])
    right.set_xlabel("test accuracy (%), 95 % interval", fontsize=10)
    return style.save(figure, path)


def _percent(summaries: Sequence[Mapping[str, Any]]) -> tuple[style.Floats, style.Floats]:
    """Means and half intervals in percent; NaN where there is no mean."""
    mean = [np.nan if summary["mean"] is None else 100 * summary["mean"] for summary in summaries]
    return np.array(mean), np.array([100 * (summary["ci95"] or 0.0) for summary in summaries])


def _clients(results: Results) -> list[Mapping[str, Any]]:
    clients = answered(results)
    if not clients:
        raise style.NoDataError("no client answered")
    return clients


def _of_group(draw: Callable[[RunGroup, Path], Path]) -> Callable[[Results, Path], Path]:
    """A figure of gathered runs as that of one run."""

    def drawn(results: Results, path: Path) -> Path:
        return draw(RunGroup(None, results["data"]["name"], (Variant("", {}, (results,)),)), path)

    return style.styled(drawn)


FIGURES = {
    "accuracy_over_epochs": accuracy_over_epochs,
    "clients_paired": clients_paired,
    "evolution": _of_group(fig6a_evolution.figure),
    "criterion": criterion,
    "transfer": _of_group(transfer_profile),
    "collective": _of_group(accuracy_over_tasks),
    "continual": continual,
    "bytes": bytes_received,
    "frontier": frontier,
    "open_world": open_world,
    "cycle": _of_group(cycles),
    "gradcam": gradcam,
}
