"""The embedded dataset: characters of the typefaces that matplotlib carries, drawn in colour."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from learngene.data.class_split import draw_class_split
from learngene.data.dataset import SPLITS
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import Source, hash_files
from learngene.errors import InputError
from learngene.seeding import generator
from learngene.utils.hardware import memory

# Chosen among the 340 undecorated letters and digits that all 16 faces contain: drawn in every
# face, brought to one size and compared, no two correlate above 0.85 on average. So o, O and 0
# are one class, as are Latin, Greek and Cyrillic letters of one shape.
CHARACTERS = (
    "234679ABCJKLMNPQRTUadefhikmnoqrsvwxyzÆÞæøƈƕƫƺǁɔɕɖɘɝɣɮɱɲɹɻʁʂʅʍʎʐʑʔʖʞʣʤʦʧʨ"
    "ΞΣΨαβλμνξςχωϙϞϟϠϡЂЋДФЦЫЮжлчщъьяђљњѣҐ"
)
# One face of each family is for tests alone, and each in another style.
TEST_FACES = ("DejaVuSans-Oblique", "DejaVuSansMono-Bold", "DejaVuSerif", "STIXGeneralBolIta")
TRAIN_FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic",
)  # fmt: skip
FACES = {"train": TRAIN_FACES, "test": TEST_FACES}
PIXEL_BYTES = 48  # of memory for each pixel of a class while it is drawn


def face_file(face: str) -> Path:
    """The TrueType file of a face inside matplotlib."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"


@cache
def _font(face: str, pixels: int) -> ImageFont.FreeTypeFont:
    # The basic layout, because the other one depends on a library that may be missing.
    return ImageFont.truetype(str(face_file(face)), pixels, layout_engine=ImageFont.Layout.BASIC)


def glyph_mask(character: str, face: str, size: int) -> Image.Image:
    """A character, its longer side ``2 size`` pixels, centred on a black square of ``3 size``."""
    font = _font(face, 4 * size)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    glyph = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(glyph).text((-left, -top), character, font=font, fill=255)
    glyph = glyph.crop(glyph.getbbox())
    scale = 2 * size / max(glyph.size)
    width, height = (max(1, round(side * scale)) for side in glyph.size)
    glyph = glyph.resize((width, height), Image.Resampling.LANCZOS)
    mask = Image.new("L", (3 * size, 3 * size))
    mask.paste(glyph, ((3 * size - width) // 2, (3 * size - height) // 2))
    return mask


def _affine(chance: NDArray[np.float64], size: int) -> tuple[float, ...]:
    """Pillow's six coefficients, from the ``2 size`` output back into the mask.

    ``chance`` holds six numbers in [-1, 1]: rotation, scale, aspect, shear, shift x and y.
    """
    angle = math.radians(25 * chance[0])
    scale = 0.70 + 0.16 * chance[1]
    wide, high = scale * (1 + 0.15 * chance[2]), scale * (1 - 0.15 * chance[2])
    cos, sin, shear = math.cos(angle), math.sin(angle), 0.25 * chance[3]
    # Forward: rotate(shear(scale)); a, b, c, d of that matrix, then its inverse.
    a, b = cos * wide, (cos * shear - sin) * high
    c, d = sin * wide, (sin * shear + cos) * high
    det = a * d - b * c
    ia, ib, ic, id_ = d / det, -b / det, -c / det, a / det
    x, y = size * (1 + 0.16 * chance[4]), size * (1 + 0.16 * chance[5])  # centre in the output
    return ia, ib, 1.5 * size - ia * x - ib * y, ic, id_, 1.5 * size - ic * x - id_ * y


def _stroke(draw: ImageDraw.ImageDraw, at: NDArray[np.float64], size: int, fill: int) -> None:
    """A line of 1 to 2 final pixels; ``at`` is x, y, x, y and width, each in [0, 1]."""
    ends = [2 * size * float(value) for value in at[:4]]
    draw.line(ends, fill=fill, width=max(1, round(size / 16 * (1 + float(at[4])))))


def _colours(rng: np.random.Generator, count: int) -> tuple[NDArray[np.float32], ...]:
    """Ink and paper (count, 3, 1, 1) in [0, 1], bright enough apart to be read."""
    pairs = rng.random((count, 6, 2, 3), dtype=np.float32)
    weights = np.array([0.30, 0.59, 0.11], np.float32)  # how bright the eye finds red, green, blue
    apart = np.abs((pairs[:, :, 0] - pairs[:, :, 1]) @ weights)
    # The first pair far enough apart, else the farthest: taking the farthest always would leave
    # nothing but black and white.
    best = np.where((apart > 0.28).any(1), (apart > 0.28).argmax(1), apart.argmax(1))
    chosen = pairs[np.arange(count), best]
    return chosen[:, 0, :, None, None], chosen[:, 1, :, None, None]


def draw_class(character: str, split: str, count: int, size: int, seed: int) -> NDArray[np.uint8]:
    """``count`` images (count, size, size, 3) of a character in the split's faces."""
    rng = generator(seed, f"glyphs-{split}", client=CHARACTERS.index(character))
    masks = [glyph_mask(character, face, size) for face in FACES[split]]
    faces = rng.integers(len(masks), size=count)
    places = rng.uniform(-1, 1, (count, 6))
    strokes = rng.random((count, 4, 5))
    under, over = rng.integers(1, 4, count), rng.random(count) < 0.4
    shapes = np.empty((2, count, 1, size, size), np.float32)  # how much ink, how much clutter
    for i in range(count):
        ink = masks[faces[i]].transform(
            (2 * size, 2 * size),
            Image.Transform.AFFINE,
            _affine(places[i], size),
            Image.Resampling.BILINEAR,
        )
        clutter = Image.new("L", (2 * size, 2 * size))
        draw = ImageDraw.Draw(clutter)
        for stroke in strokes[i, : under[i]]:
            _stroke(draw, stroke, size, 255)
        if over[i]:  # this one crosses the letter: it is cut out of the ink
            _stroke(draw, strokes[i, 3], size, 255)
            _stroke(ImageDraw.Draw(ink), strokes[i, 3], size, 0)
        shapes[0, i, 0] = np.asarray(ink.reduce(2))  # antialiasing
        shapes[1, i, 0] = np.asarray(clutter.reduce(2))
    shapes /= 255

    # Channels first until the end: NumPy is slow where the last axis is 3.
    ink_colour, paper = _colours(rng, count)
    line = rng.random((count, 3, 1, 1), dtype=np.float32)
    slope = rng.uniform(-0.3, 0.3, (2, count, 3, 1, 1)).astype(np.float32)
    ramp = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    image = (slope[0] * ramp[:, None] + paper) + slope[1] * ramp  # (count, 3, size, size)
    image += (line - image) * (shapes[1] * np.float32(0.8))
    image += (ink_colour - image) * shapes[0]
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    noise *= rng.uniform(0.01, 0.07, (count, 1, 1, 1)).astype(np.float32)
    image += noise
    np.clip(image, 0, 1, out=image)
    image *= 255
    image += 0.5
    return np.ascontiguousarray(image.astype(np.uint8).transpose(0, 2, 3, 1))


class GlyphSource(Source):
    """Characters as classes; ``batches`` draws one class at a time."""

    def __init__(self, settings: SeededDataSettings) -> None:
        """Check the settings and divide the classes.

        Raises:
            InputError: no size that is drawn, or a bad class split.
        """
        counts = {"train": settings.train_per_class, "test": settings.test_per_class}
        size = settings.image_size or 32
        if not 16 <= size <= 256:
            problem = "glyphs are drawn with sides of 16 to 256 pixels"
            raise InputError("data.image_size", size, problem, "Try 32")
        # Shuffled, so that a smaller dataset is not Latin alone and no group is of one script.
        order = generator(settings.seed, "glyphs-classes").permutation(len(CHARACTERS))
        super().__init__(
            class_names=tuple(CHARACTERS[i] for i in order[: settings.classes]),
            class_split=draw_class_split(settings.classes, settings),
            image_size=size,
            labels={s: np.repeat(np.arange(settings.classes), counts[s]) for s in SPLITS},
            shaping={
                "image_size": size,
                "classes": settings.classes,
                "counts": counts,
                "shares": [settings.base, settings.open_world, settings.novel],
                "seed": settings.seed,
                "freetype": features.version_module("freetype2"),
            },
            flip=False,  # d mirrors into b
        )
        self._counts, self._seed = counts, settings.seed

    def content(self) -> str:
        return hash_files([face_file(face) for face in TRAIN_FACES + TEST_FACES])

    def batches(self, split: str) -> Iterator[NDArray[np.uint8]]:
        count, side = self._counts[split], self.image_size
        due, (free, _) = count * side**2 * PIXEL_BYTES, memory()
        if due > free:
            problem = f"drawing a class takes {due / 1e9:,.1f} GB of memory"
            problem = f"{problem}, {free / 1e9:,.1f} are free"
            raise InputError(f"data.{split}_per_class", count, problem, "Lower it")
        for name in self.class_names:
            yield draw_class(name, split, count, side, self._seed)
