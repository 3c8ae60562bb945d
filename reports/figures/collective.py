"""The figures of the factory side: the criterion, the collective's life, what it forgot, the open
world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from reports.collective import depth_label, layer_names
from reports.figures import style
from reports.format import rho_label, score_label, score_words
from reports.schema import Results

NO_COLLECTIVE = "the run started from a saved learngene, without a collective"
WRITTEN_UP_TO = 10  # tasks: with more of them the cells of a matrix are too small for numbers


@style.styled
def criterion(results: Results, path: Path) -> Path:
    """rho by layer and task, the top layer on top (the paper's figure 3).

    Inherited layers are framed; a bar at the right marks what the criterion selects. Copies of
    layers have the names of their lineage beside their number, ``6 (5b)``, and are grey until
    they are made.
    """
    if results["criterion"] is None:
        raise style.NoDataError(NO_COLLECTIVE)
    rho = np.array(results["criterion"]["rho"], dtype=float).T  # (layers, tasks); null is NaN
    if rho.size == 0:
        raise style.NoDataError("no task recorded rho")
    layers, tasks = rho.shape
    figure, axes = style.new_axes(max(4.2, 0.3 * layers))
    image = style.heat_map(axes, rho, max(float(np.nanmax(rho, initial=0)), 1e-6))
    axes.set_facecolor(style.ABSENT)
    style.colour_bar(figure, image, axes, rho_label(results["criterion"]), pad=0.04)
    inherited = set((results["learngene"] or {}).get("layers", []))
    for layer in sorted(inherited):
        frame = Rectangle((0.5, layer - 0.5), tasks, 1, fill=False, ec=style.VERMILION, lw=2.2)
        axes.add_patch(frame).set_clip_on(False)
    selected = results["criterion"]["selected"]
    if selected:
        _mark(axes, selected[0] - 0.5, selected[-1] + 0.5, layers)
    ticks = range(1, layers + 1)
    names = [
        (name if name == str(layer) else f"{layer} ({name})")
        + (" inherited" if layer in inherited else "")
        for layer, name in zip(ticks, layer_names(results), strict=True)
    ]
    axes.set_yticks(ticks, names)
    for layer in inherited:
        axes.get_yticklabels()[layer - 1].set(weight="bold", color="#A84800")
    style.task_ticks(axes.xaxis)
    axes.set_xlim(0.5, tasks + 0.5)
    axes.set(xlabel="task", ylabel="layer of the collective")
    return style.save(figure, path)


def _mark(axes: Axes, bottom: float, top: float, layers: int) -> None:
    """A bar right of the map from layer ``bottom`` to ``top``, called selected."""
    along = axes.get_yaxis_transform()  # x in shares of the axes, y in layers
    bar: style.Look = {"color": "black", "lw": 3, "clip_on": False, "solid_capstyle": "butt"}
    axes.plot([1.012, 1.012], [bottom + 0.1, top - 0.1], transform=along, **bar)
    middle = min(max((bottom + top) / 2, 2), layers - 1)  # the word is three layers long
    word: style.Look = {"rotation": 90, "va": "center", "fontsize": "small"}
    axes.text(1.022, middle, "selected", transform=along, **word)


@style.styled
def continual(results: Results, path: Path) -> Path:
    """Accuracy on every task after every task."""
    if results["collective"] is None:
        raise style.NoDataError(NO_COLLECTIVE)
    measures = results["collective"].get("continual")
    if not measures or "matrix" not in measures:  # kept results have the measures alone
        raise style.NoDataError("the results hold no accuracy by task")
    figure, axes = style.new_axes(4.3)
    image = _triangle(axes, measures["matrix"])
    axes.set_title(depth_label([results]), loc="left")
    axes.set(xlabel="test images of task", ylabel="after task")
    style.colour_bar(figure, image, axes, "accuracy among all classes known by then (%)")
    return style.save(figure, path)


def _triangle(axes: Axes, rows: list[list[float]]) -> QuadMesh:
    """Draws a lower triangular matrix of fractions in percent, the first task on top."""
    tasks = len(rows)
    percent = np.full((tasks, tasks), np.nan)
    for after, row in enumerate(rows):
        percent[after, : len(row)] = 100 * np.array(row)
    # One scale for every run: figures of two strategies can be laid side by side.
    image = style.heat_map(axes, percent, 100)
    axes.invert_yaxis()
    for axis in (axes.xaxis, axes.yaxis):
        style.task_ticks(axis)
    if tasks <= WRITTEN_UP_TO:
        for after, task in np.argwhere(np.isfinite(percent)):
            value = percent[after, task]
            colour = "black" if value > 55 else "white"  # cividis is dark at its low end
            look: style.Look = {"ha": "center", "va": "center", "color": colour, "size": 11}
            axes.text(task + 1, after + 1, f"{value:.0f}", **look)
    return image


@style.styled
def open_world(results: Results, path: Path) -> Path:
    """How unknown the test images look, and how well each score tells the two groups apart."""
    value = results["open_world"]
    if value is None:
        raise style.NoDataError(NO_COLLECTIVE)
    if not value.get("histogram"):
        raise style.NoDataError("the results hold no histogram of scores")
    scores = {name: areas for name, areas in (value.get("scores") or {}).items() if areas}
    heights = [3.7] + ([0.7 + 0.28 * len(scores)] if scores else [])
    figure = style.new_figure(sum(heights))
    # Subfigures: the names of the scores must not push the histogram to the right.
    upper, *lower = figure.subfigures(len(heights), height_ratios=heights, squeeze=False)[:, 0]
    axes = upper.add_subplot()
    _score_histogram(axes, value)
    style.legend_above(upper, axes)
    for part in lower:
        _score_ranking(part.add_subplot(), scores, value.get("score"))
    return style.save(figure, path)


def _score_histogram(axes: Axes, value: Results) -> None:
    """Shares of known and of open-world images over the chosen score, with the threshold."""
    histogram, threshold = value["histogram"], value["threshold"]
    for key, name, colour, dashes in (
        ("known", "known classes", style.BLUE, "-"),
        ("open_world", "open-world classes", style.VERMILION, "--"),
    ):
        counts = np.array(histogram[key], dtype=float)
        # Shares, not counts: there are several times as many known images.
        share = 100 * counts / max(counts.sum(), 1)
        axes.stairs(share, histogram["edges"], color=colour, lw=1.8, ls=dashes, label=name)
        axes.stairs(share, histogram["edges"], color=colour, alpha=0.2, fill=True)
    axes.axvline(threshold, color="black", lw=1.5, label=f"threshold {threshold:.3f}")
    low, high = histogram["edges"][0], histogram["edges"][-1]
    margin = 0.02 * (high - low)
    papers = [entry["threshold"] for entry in (value.get("paper_thresholds") or {}).values()]
    if papers and value.get("score") == "max_softmax":  # they are values of Eq. 2
        for number, paper in enumerate(papers):
            label = f"the paper's {', '.join(map(str, papers))}"
            axes.axvline(paper, color=style.GREY, lw=1.5, ls=":", label="" if number else label)
        high = max(high, max(papers) + margin)
    axes.set(xlabel=score_label(value), ylabel="share of images (%)", ylim=(0, None))
    axes.set_xlim(min(low, threshold - margin), max(high, threshold + margin))


def _score_ranking(axes: Axes, scores: Results, chosen: str | None) -> None:
    """AUROC of every score as a dot on a line from chance, the best on top."""
    names = sorted(scores, key=lambda name: scores[name]["auroc"])
    areas = [scores[name]["auroc"] for name in names]
    rows = range(len(names))
    axes.axvline(0.5, color=style.GREY, ls="--", lw=1.2)
    axes.hlines(rows, 0.5, areas, color=style.GREY, lw=1.2)
    for row, name, area in zip(rows, names, areas, strict=True):
        axes.plot(area, row, "o", color=style.BLUE if name == chosen else style.GREY, ms=8)
        # Beside the dot, on the side away from the line to chance.
        side, offset = ("left", 8) if area >= 0.5 else ("right", -8)
        beside: style.Look = {"textcoords": "offset points", "ha": side, "va": "center"}
        axes.annotate(f"{area:.3f}", (area, row), (offset, 0), **beside)
    labels = [
        f"{score_words(name)} (chosen)" if name == chosen else score_words(name) for name in names
    ]
    axes.set_yticks(rows, labels)
    axes.grid(False, axis="y")
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(min(0.45, min(areas) - 0.12), 1.0)
    axes.set_xlabel("area under the ROC curve (0.5 = chance)")
