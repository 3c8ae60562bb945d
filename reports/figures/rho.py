"""Draw heat maps of the criterion: figure 3, and collectives side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure, SubFigure

from reports.collective import layer_names
from reports.figures import style
from reports.figures.collective import NO_COLLECTIVE
from reports.figures.transfer import draw_profile
from reports.units import counted
from reports.variants import RunGroup, Variant

BESIDE = 3  # panels in a row of a figure that is 6 inches wide


def rho_heatmap(group: RunGroup, path: Path) -> Path:
    """Figure 3: rho by layer and task, mean over seeds, a panel a variant; below it, where the runs
    have one, the transfer profile, which rho is to tell."""
    maps = [_mean(variant) for variant in group.variants]
    profiles = [all(run.get("transfer") for run in variant.runs) for variant in group.variants]
    parts = len(maps) + sum(profiles)
    figure = style.new_figure(4.4 * parts)
    rows = iter(figure.subfigures(parts, 1, squeeze=False)[:, 0])
    for variant, mean, profile in zip(group.variants, maps, profiles, strict=True):
        part = next(rows)
        axes = part.subplots()
        image = _panel(axes, variant, mean)
        axes.set(xlabel="task", ylabel="layer of the collective", title=variant.label or group.data)
        _scale(part, image, [axes], len(variant.runs))
        if profile:
            draw_profile(next(rows), variant)
    return style.save(figure, path)


def rho_side_by_side(group: RunGroup, path: Path) -> Path:
    """The same maps side by side on one scale, so that variants can be compared."""
    maps = [_mean(variant) for variant in group.variants]
    high = max(float(mean.max()) for mean in maps)
    columns = min(BESIDE, len(maps))
    rows = -(-len(maps) // columns)
    figure = style.new_figure(rows * max(4.4, 0.7 + 0.29 * max(len(mean) for mean in maps)))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel()[len(maps) :]:
        axes.set_axis_off()
    for place, (axes, variant, mean) in enumerate(
        zip(grid.ravel(), group.variants, maps, strict=False)
    ):  # the last row may have places left
        image = _panel(axes, variant, mean, high)
        axes.tick_params(labelsize=9)
        style.task_ticks(axes.xaxis, most=5)
        axes.set_xlabel("task")
        axes.set_title(_title(variant) or group.data, fontsize=10)
        if place % columns == 0:
            axes.set_ylabel("layer of the collective")
    runs = {len(variant.runs) for variant in group.variants}
    _scale(figure, image, grid.ravel().tolist(), *sorted(runs))
    return style.save(figure, path)


def _mean(variant: Variant) -> np.ma.MaskedArray:
    """rho (layers, tasks), mean over the variant's runs; masked where a layer was not there."""
    if any(run["criterion"] is None for run in variant.runs):
        raise style.NoDataError(NO_COLLECTIVE)
    return style.mean_map(
        [np.array(run["criterion"]["rho"], dtype=float).T for run in variant.runs]
    )


def _panel(
    axes: Axes, variant: Variant, mean: np.ma.MaskedArray, high: float | None = None
) -> QuadMesh:
    """Draw a map, layer 1 at the bottom; ``high`` is the value of the brightest colour."""
    image = style.heat_map(axes, mean, high)
    axes.set_facecolor(style.ABSENT)
    axes.set_yticks(range(1, len(mean) + 1), layer_names(variant.runs[0]))
    style.task_ticks(axes.xaxis)
    return image


def _scale(figure: Figure | SubFigure, image: QuadMesh, panels: Sequence[Axes], *runs: int) -> None:
    """``runs``: how many the panels are of, rising."""
    fewest = f"{runs[0]} to " if len(runs) > 1 else ""
    style.colour_bar(figure, image, panels, f"ρ, mean of {fewest}{counted(runs[-1], 'run')}")


def _title(variant: Variant) -> str:
    """The variant's settings, one a line, without their groups and without folders."""
    return "\n".join(
        f"{name.rpartition('.')[2]}: {str(value).rpartition('/')[2]}"
        for name, value in variant.settings.items()
    )
