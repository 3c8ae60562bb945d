"""The contact sheet of Grad-CAM maps (the paper's figure 5)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray

from reports.figures import style
from reports.figures.collective import NO_COLLECTIVE
from reports.schema import Results
from server.gradcam import decode

NAME = 11  # characters of a class name that stand above an image


@style.styled
def gradcam(results: Results, path: Path) -> Path:
    """A row an image of an unknown class: the image, then where each stage looks."""
    sheet = results.get("gradcam")
    if sheet is None:
        raise style.NoDataError(_reason(results))
    images, stages = sheet["images"], sheet["stages"]
    if any(not image["picture"] for image in images):
        raise style.NoDataError(
            "these results are kept ones, without the pictures and maps of figure 5"
        )
    columns = 1 + len(stages)
    side = style.WIDTH / max(columns, 4)
    figure = style.new_figure(len(images) * (side + 0.12) + 0.7)
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, image in zip(grid, images, strict=True):
        picture = decode(image["picture"])
        maps = np.split(decode(image["maps"]), len(stages))
        row[0].imshow(picture)
        # A folder's name is no formula, whatever dollars are in it.
        row[0].set_title(_shown(image["class"]), fontsize=10, pad=2, parse_math=False)
        for axes, heat in zip(row[1:], maps, strict=True):
            _overlay(axes, picture, heat)
    for axes, stage in zip(grid[0][1:], stages, strict=True):
        axes.set_title(str(stage["known_classes"]), fontsize=12, pad=2)
    for axes in grid.flat:
        axes.set_axis_off()
    figure.suptitle("image, and where the collective looks, by known classes", fontsize=12)
    return style.save(figure, path)


def _shown(name: str) -> str:
    """A class name as it fits above an image; where the type has no sign for a letter, a note that
    leads to the table below, which has the name."""
    known = get_font(findfont(FontProperties()))
    if not all(known.get_char_index(ord(letter)) for letter in name):
        return "(see table)"
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


def _overlay(axes: Axes, picture: NDArray[np.uint8], heat: NDArray[np.uint8]) -> None:
    """The map over the image in gray; where there is no heat the image shows as it is."""
    # The channel with the most contrast: a mean of all may wash out what differs in hue alone.
    gray = picture[:, :, picture.std((0, 1)).argmax()]
    axes.imshow(gray, cmap="gray")
    axes.imshow(heat, cmap="plasma", vmin=0, vmax=255, alpha=0.75 * heat / 255)


def _reason(results: Results) -> str:
    if results["collective"] is None:
        return NO_COLLECTIVE
    asked = results["run"].get("config", {}).get("report", {}).get("gradcam_images")
    if asked == 0:
        return "report.gradcam_images is 0"
    return "the results hold no Grad-CAM maps"
