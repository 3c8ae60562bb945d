"""The figure of ``reports.experiments.bound_fit``: gaps with the fitted form of Eq. 10, residuals below."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from learngene.utils.files import write_atomically

STYLES = (("#0072B2", "o", "-"), ("#D55E00", "s", "--"), ("#009E73", "^", ":"),
          ("#CC79A7", "D", "-."))  # fmt: skip


def draw(found: Mapping[str, Any], path: Path) -> Path:
    """Write the PNG; ``found`` as ``reports.experiments.bound_fit.bound`` makes it."""
    sizes = np.array(found["sizes"], float)
    figure = Figure(figsize=(6, 5.4), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    fine = np.geomspace(sizes[0], sizes[-1], 100)
    for number, (name, fitted) in enumerate(found["methods"].items()):
        colour, marker, dashes = STYLES[number % len(STYLES)]
        gaps = 100 * np.array(fitted["gaps"])  # (clients, sizes)
        aside = 1 + 0.05 * (number - (len(found["methods"]) - 1) / 2)  # dots must not coincide
        above.plot(
            np.tile(sizes * aside, len(gaps)), gaps.ravel(),
            ls="", marker=".", ms=4, color=colour, alpha=0.25,
        )  # fmt: skip
        above.plot(sizes * aside, gaps.mean(0), ls="", marker=marker, color=colour,
                   label=f"{name}, mean of {len(gaps)} clients")  # fmt: skip
        line = 100 * (fitted["c1"] + fitted["slope"] / np.sqrt(fine))
        label = f"fit: {100 * fitted['c1']:.1f} + {100 * fitted['slope']:.0f} / √m̄"
        above.plot(fine, line, color=colour, ls=dashes, lw=1.5, label=label)
        below.plot(sizes, 100 * np.array(fitted["residuals"]), color=colour, marker=marker,
                   ls=dashes, lw=1)  # fmt: skip
    below.axhline(0, color="#6B6B6B", lw=1)
    below.set_xscale("log")
    below.xaxis.set_minor_locator(NullLocator())
    below.set_xticks(sizes, [f"{size:g}" for size in sizes])
    below.set(xlabel="m̄, training images of a client, log scale", ylabel="residual")
    above.set(ylabel="test error − training error (points)")
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    for axes in (above, below):
        axes.grid(color="#E4E4E4")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())
    return path
