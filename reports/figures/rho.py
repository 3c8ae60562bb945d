"""Draw heat maps of the criterion: figure 3, and collectives side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reports.collective import layer_names
from reports.figures.collective import NO_COLLECTIVE
from reports.figures.style import NoDataError, new_figure, save
from reports.variants import RunGroup, Variant

BESIDE = 3  # panels in a row of a figure that is 6 inches wide


def rho_heatmap(group: RunGroup, path: Path) -> Path:
    """Figure 3: rho by layer and task, mean over seeds, a panel a variant."""
    maps = [_mean(variant) for variant in group.variants]
    figure = new_figure(4.4 * len(maps))
    panels = figure.subplots(len(maps), 1, squeeze=False)[:, 0]
    for axes, variant, mean in zip(panels, group.variants, maps, strict=True):
        image = _panel(axes, variant, mean)
        axes.set(xlabel="task", ylabel="layer of the collective", title=variant.label or group.data)
        _scale(figure, image, [axes], len(variant.runs))
    return save(figure, path)


def rho_side_by_side(group: RunGroup, path: Path) -> Path:
    """The same maps side by side on one scale, so that variants can be compared."""
    maps = [_mean(variant) for variant in group.variants]
    high = max(float(mean.max()) for mean in maps)
    columns = min(BESIDE, len(maps))
    rows = -(-len(maps) // columns)
    figure = new_figure(rows * max(4.4, 0.7 + 0.29 * max(len(mean) for mean in maps)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel()[len(maps) :]:
        axes.set_axis_off()
    for place, (axes, variant, mean) in enumerate(
        zip(grid.ravel(), group.variants, maps, strict=False)
    ):  # the last row may have places left
        image = _panel(axes, variant, mean, high)
        axes.tick_params(labelsize=9)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
        axes.set_xlabel("task")
        axes.set_title(_title(variant) or group.data, fontsize=10)
        if place % columns == 0:
            axes.set_ylabel("layer of the collective")
    _scale(figure, image, grid.ravel().tolist(), len(group.variants[0].runs))
    return save(figure, path)


def _mean(variant: Variant) -> np.ma.MaskedArray:
    """rho (layers, tasks), mean over the variant's runs; masked where a layer was not there."""
    if any(run["criterion"] is None for run in variant.runs):
        raise NoDataError(NO_COLLECTIVE)
    maps = [np.array(run["criterion"]["rho"], dtype=float).T for run in variant.runs]
    if len({each.shape for each in maps}) > 1:
        raise NoDataError("the seeds differ in their layers or tasks")
    return np.ma.masked_invalid(np.mean(maps, axis=0))


def _panel(
    axes: Axes, variant: Variant, mean: np.ma.MaskedArray, high: float | None = None
) -> QuadMesh:
    """Draw a map, layer 1 at the bottom; ``high`` is the value of the brightest colour."""
    layers, tasks = mean.shape
    edges = np.arange(tasks + 1) + 0.5, np.arange(layers + 1) + 0.5
    image = axes.pcolormesh(*edges, mean, cmap="cividis", vmin=0, vmax=high)
    axes.set_facecolor("#DDDDDD")  # a layer that was not there yet
    axes.grid(False)
    axes.set_yticks(range(1, layers + 1), layer_names(variant.runs[0]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=14, min_n_ticks=1))
    return image


def _scale(figure: Figure, image: QuadMesh, panels: Sequence[Axes], runs: int) -> None:
    bar = figure.colorbar(image, ax=panels, pad=0.02)
    bar.set_label(f"ρ, mean of {runs} run{'s' * (runs > 1)}")
    bar.outline.set_visible(False)


def _title(variant: Variant) -> str:
    """The variant's settings, one a line, without their groups and without folders."""
    return "\n".join(
        f"{name.rpartition('.')[2]}: {str(value).rpartition('/')[2]}"
        for name, value in variant.settings.items()
    )
