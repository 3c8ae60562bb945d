"""Small pictures as text: PNG in base64, as ``results.json`` holds them."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode(pixels: NDArray[np.uint8]) -> str:
    """uint8 (H, W) or (H, W, 3) as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def decode(text: str) -> NDArray[np.uint8]:
    """What ``encode`` was given.

    Raises:
        ValueError: the text is not base64, or not an image.
    """
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            return np.array(image)
    except OSError as error:
        raise ValueError(f"not a picture: {error}") from error


def shrink(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture (H, W) or (H, W, 3) with no side longer than ``side`` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.array(image)
