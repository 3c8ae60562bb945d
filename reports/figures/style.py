"""What all figures share: colours, type sizes, and how a figure is saved.

Figures are 6 inches wide with type of 12 points: in the report, at the width of a phone, that is
still 10 pixels. Names beside crowded axes have 9 or 10 points; the tables below hold them, too.
Nothing here goes through pyplot, which keeps figures in a global registry.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from learngene.utils.files import write_atomically
from reports.format import format_bytes

# Okabe and Ito's colours, told apart by people with any common colour-vision deficiency. Their
# yellow is left out: too faint for a line on white.
BLUE, VERMILION, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, ORANGE, BLACK = "#56B4E9", "#E69F00", "#000000"
GREY = "#6B6B6B"
ABSENT = "#DDDDDD"  # the ground of a heat map: a layer that was not there, or has no gradients
FIXED = {"learngene": BLUE, "scratch": VERMILION}  # the same in every run
# Then some of Paul Tol's muted colours, made for the same eyes. From the eighth method on, colours
# alone are too many to tell apart: each method also has a marker of its own.
OTHERS = (
    *(GREEN, PINK, ORANGE, SKY, BLACK),
    *("#332288", "#882255", "#999933", "#44AA99", "#661100", "#AA4499", "#8C6D31"),
    *("#117733", "#CC6677", "#5B6C9A"),
)
MARKERS = "osD^vPX<>ph*d8x+1"  # a second sign beside colour, for print in grey
LINE_COLOURS = (BLUE, VERMILION, GREEN, *OTHERS[1:])  # of variants, which are no methods
WIDTH = 6.0  # inches
LEGEND_CHARACTERS = 64  # that a line of the legend holds at that width
STYLE: dict[Any, Any] = {  # matplotlib names every key in its types
    "font.size": 12,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 150,
}
Shown = TypeVar("Shown")  # what a figure is drawn from: results, or a group of runs
Floats = NDArray[np.float64]
Look = dict[str, Any]  # matplotlib's keywords of a line, a mark or a text


class NoDataError(LookupError):
    """The results do not hold what a figure shows; the message says what is absent and why."""


def styled(draw: Callable[[Shown, Path], Path]) -> Callable[[Shown, Path], Path]:
    """Draws with the house style and leaves matplotlib's settings as they were."""

    @wraps(draw)
    def inner(shown: Shown, path: Path) -> Path:
        with matplotlib.rc_context(STYLE):
            return draw(shown, path)

    return inner


def reason_undrawn(draw: Callable[[Shown, Path], Path], shown: Shown, path: Path) -> str:
    """Draw into ``path``, and say nothing; or why what is shown does not hold it. An old figure is
    then removed: it would show another run."""
    try:
        draw(shown, path)
    except NoDataError as reason:
        path.unlink(missing_ok=True)
        return str(reason)
    return ""


def new_figure(height: float) -> Figure:
    """An empty figure, ``height`` inches high, that no global state knows of."""
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def new_axes(height: float) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    figure = new_figure(height)
    return figure, figure.add_subplot()


def save(figure: Figure, path: Path) -> Path:
    """Writes the PNG whole; without the software tag, so that equal figures are equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
    return path


def method_style(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and marker of each method, stable as long as the list of methods is."""
    free = [name for name in names if name not in FIXED]
    colours = FIXED | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(free)}
    return {
        name: {"color": colours[name], "marker": MARKERS[i % len(MARKERS)]}
        for i, name in enumerate(names)
    }


def spread(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Where labels of these values stand between low and high, ``gap`` apart, in the same order.

    As near to their values as that allows, by least squares: what is left of each after the gaps
    below it must not fall, which is isotonic regression. Those that do not fit end above high.
    """
    if not values:
        return []
    order = np.argsort(values, kind="stable")
    below = gap * np.arange(len(values))
    left = isotonic_regression(np.asarray(values, float)[order] - below).x
    at = np.empty(len(values))
    at[order] = np.clip(left, low, max(low, high - below[-1])) + below
    return [float(y) for y in at]


def whole_numbers(axis: Axis, **options: Any) -> None:
    """Ticks at whole numbers; ``options`` of matplotlib's locator."""
    axis.set_major_locator(MaxNLocator(integer=True, **options))


def task_ticks(axis: Axis, most: int = 14) -> None:
    """Ticks at the numbers of tasks, one where there is one task."""
    whole_numbers(axis, nbins=most, min_n_ticks=1)


def size_tick(count: float, _: float | None = None) -> str:
    """Bytes beside a tick, round where they are."""
    return format_bytes(count).replace(".0 ", " ")


def band(
    axes: Axes, x: Sequence[float], mean: Floats, half: Floats, colour: str, share: bool = False
) -> None:
    """The 95 % interval of a line; ``share``: of percent, which it does not leave."""
    low, high = mean - half, mean + half
    if share:
        low, high = np.clip(low, 0, None), np.clip(high, None, 100)
    axes.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)


def heat_map(axes: Axes, values: Any, high: float | None = None, low: float = 0) -> QuadMesh:
    """A map of (rows, columns), which are counted from 1; NaN shows the ground, ``low`` has the
    darkest colour, ``high`` the brightest."""
    rows, columns = values.shape
    edges = np.arange(columns + 1) + 0.5, np.arange(rows + 1) + 0.5
    masked = np.ma.masked_invalid(values)
    image = axes.pcolormesh(*edges, masked, cmap="cividis", vmin=low, vmax=high)
    axes.grid(False)
    return image


def mean_map(maps: Sequence[Floats]) -> np.ma.MaskedArray:
    """The mean of heat maps, one a seed; masked where there is no value.

    Raises:
        NoDataError: they are of other layers or tasks.
    """
    if len({each.shape for each in maps}) > 1:
        raise NoDataError("the seeds differ in their layers or tasks")
    return np.ma.masked_invalid(np.mean(maps, axis=0))


def colour_bar(
    figure: Figure | SubFigure,
    image: QuadMesh,
    panels: Axes | Sequence[Axes],
    label: str,
    pad: float = 0.02,
) -> None:
    """The scale of a heat map, at the right of its panels."""
    bar = figure.colorbar(image, ax=panels, pad=pad)
    bar.set_label(label)
    bar.outline.set_visible(False)


def legend_above(figure: Figure | SubFigure, axes: Axes) -> None:
    """The legend above the axes, in as many columns as fit; inside, it would lie on some data."""
    handles, labels = axes.get_legend_handles_labels()
    columns = LEGEND_CHARACTERS // (max(map(len, labels)) + 5)  # 5: the sign and the gap
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=min(len(labels), max(1, columns)),
        handlelength=1.2,
        columnspacing=1.0,
    )


def save_with_legend(figure: Figure, axes: Axes, path: Path) -> Path:
    """Write a figure with the legend of one of its axes above."""
    legend_above(figure, axes)
    return save(figure, path)
