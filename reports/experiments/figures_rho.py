"""Heat maps of the criterion over arms and seeds: figure 3, and collectives side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.ticker import MaxNLocator

from reports.experiments.rows_figures import layer_names
from reports.figures.collective import NO_COLLECTIVE
from reports.figures.style import NoDataError, new_figure, save
from reports.variants import Arm, Gathered

BESIDE = 3  # panels in a row of a figure that is 6 inches wide


def trends(gathered: Gathered, path: Path) -> Path:
    """Figure 3: rho by layer and task, mean over seeds, a panel an arm."""
    maps = [_mean(arm) for arm in gathered.arms]
    figure = new_figure(4.4 * len(maps))
    panels = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
    for axes, arm, mean in zip(panels, gathered.arms, maps, strict=True):
        image = _panel(axes, arm, mean)
        axes.set(xlabel="task", ylabel="layer of the collective", title=arm.label or gathered.data)
        _scale(axes, image, [axes], len(arm.runs))
    return save(figure, path)


def beside(gathered: Gathered, path: Path) -> Path:
    """The same maps side by side on one scale, so that arms can be compared."""
    maps = [_mean(arm) for arm in gathered.arms]
    high = max(float(mean.max()) for mean in maps)
    columns = min(BESIDE, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure(rows * max(4.4, 0.7 + 0.29 * max(len(mean) for mean in maps)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel()[len(maps) :]:
        axes.set_axis_off()
    for place, (axes, arm, mean) in enumerate(
        zip(grid.ravel(), gathered.arms, maps, strict=False)
    ):  # the last row may have places left
        image = _panel(axes, arm, mean, high)
        axes.tick_params(labelsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        axes.set_xlabel("task")
        axes.set_title(_title(arm) or gathered.data, fontsize=10)
        if place % columns == 0:
            axes.set_ylabel("layer of the collective")
    _scale(grid.ravel()[0], image, grid.ravel().tolist(), len(gathered.arms[0].runs))
    return save(figure, path)


def _mean(arm: Arm) -> np.ma.MaskedArray:
    """rho (layers, tasks), mean over the arm's runs; masked where a layer was not there."""
    if any(run["criterion"] is None for run in arm.runs):
        raise NoDataError(NO_COLLECTIVE)
    maps = [np.array(run["criterion"]["rho"], dtype=float).T for run in arm.runs]
    if len({each.shape for each in maps}) > 1:
        raise NoDataError("the seeds differ in their layers or tasks")
    return np.ma.masked_invalid(np.mean(maps, axis=0))


def _panel(axes: Axes, arm: Arm, mean: np.ma.MaskedArray, high: float | None = None) -> QuadMesh:
    """Draw a map, layer 1 at the bottom; ``high`` is the value of the brightest colour."""
    layers, tasks = mean.shape
    edges = np.arange(tasks + 1) + 0.5, np.arange(layers + 1) + 0.5
    image = axes.pcolormesh(*edges, mean, cmap="cividis", vmin=0, vmax=high)
    axes.set_facecolor("#DDDDDD")  # a layer that was not there yet
    axes.grid(False)
    axes.set_yticks(range(1, layers + 1), layer_names(arm.runs[0]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=14, min_n_ticks=1))
    return image


def _scale(first: Axes, image: QuadMesh, panels: Sequence[Axes], runs: int) -> None:
    bar = first.get_figure().colorbar(image, ax=panels, pad=0.02)
    bar.set_label(f"ρ, mean of {runs} run{'s' * (runs > 1)}")
    bar.outline.set_visible(False)


def _title(arm: Arm) -> str:
    """The arm's settings, one a line, without their groups and without folders."""
    return "\n".join(
        f"{name.rpartition('.')[2]}: {str(value).rpartition('/')[2]}"
        for name, value in arm.settings.items()
    )
