"""Encoded images as uint8 RGB of one size: Pillow's decoders, within limits.

Values of more than 8 bits (16-bit scans, signed integers, floats) are scaled by a range that all
images of a dataset share: with a range for each image equal values would become unequal.
"""

from __future__ import annotations

import io
import math
import re
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from learngene.errors import InputError
from learngene.utils.hardware import usable_cores

Encoded = tuple[bytes | Path, str]  # an undecoded image, and its file or row for messages
Range = tuple[float, float]  # the values that become 0 and 255
T = TypeVar("T")

THREADS = min(8, usable_cores())
PIXEL_LIMIT = 89_478_485  # of one image; what Pillow warns of
_CHUNK = 32  # images that a thread takes at once: small images cost less than handing them over
# What class folders and tables are made of. Others of Pillow's formats start programs (EPS).
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM", "JPEG2000", "TGA")
_UPPER_BITS = (0, 65535)  # the one range for which the upper 8 of 16 bits are right
_LEAST_SPREAD = 1 / 8  # of the range, for the usual image: below it a dataset is all but black
_UNIT = 1 << 22  # pixels
_UNITS = math.ceil(PIXEL_LIMIT / _UNIT)
_turn, _free = threading.Lock(), threading.Semaphore(_UNITS)


@contextmanager
def _room(pixels: int) -> Iterator[None]:
    """Wait until so many pixels more may be in memory: one large image, or small ones together."""
    units = max(1, math.ceil(pixels / _UNIT))
    with _turn:  # else two images might each hold half of what they need, for ever
        for _ in range(units):
            _free.acquire()
    try:
        yield
    finally:
        _free.release(units)


@contextmanager
def own_pixel_limit() -> Iterator[None]:
    """No warning by Pillow of images that ``decode`` refuses, in the block or the function."""
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        yield


def _stream(data: bytes | Path) -> IO[bytes]:
    return io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")


def _format(head: bytes) -> tuple[str, ...]:
    """The decoder to use, where the first bytes tell: asking all of them costs a quarter more."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ("PNG",)
    return ("JPEG",) if head.startswith(b"\xff\xd8\xff") else _FORMATS


def _deep(image: Image.Image) -> bool:
    """Whether it has one channel of more than 8 bits: integers (I, I;16 ...) or floats (F)."""
    return image.mode[0] in "IF"


def _upper_bits(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow will keep the upper 8 of 16 bits alone, as it does with colour."""
    return not _deep(image) and any(re.search(";16[BLN]", str(tile[3])) for tile in image.tile)


def is_wide(data: bytes | Path) -> bool:
    """Whether the header announces more than 8 bits a value; not for what is no image."""
    with _stream(data) as stream:
        head = stream.read(26)
        match _format(head):
            case ("JPEG",):
                return False
            case ("PNG",):
                return head[24:25] == b"\x10"
        try:
            with Image.open(stream, formats=_FORMATS) as image:
                return _deep(image) or _upper_bits(image)
        except Exception:  # broken: whoever decodes it names it
            return False


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode of 8 bits as RGB: transparency on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("RGB")


def resize(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resized to ``size`` with an antialiasing bicubic filter."""
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


@contextmanager
def _loaded(data: bytes | Path, where: str) -> Iterator[tuple[Image.Image, bool]]:
    """An image, upright, RGB or ``_deep``; and whether only its values' upper bits are left.

    Raises:
        InputError: it does not decode, or is larger than ``PIXEL_LIMIT``.
    """
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(_stream(data))
            formats = _format(stream.read(8))
            opened = stack.enter_context(Image.open(stream, formats=formats))
            pixels = opened.width * opened.height
            if pixels > PIXEL_LIMIT:
                raise Image.DecompressionBombError
            upper_bits = _upper_bits(opened)
            stack.enter_context(_room(pixels))
            opened.load()
            image = ImageOps.exif_transpose(opened) if "exif" in opened.info else opened
            if not _deep(image):
                image = to_rgb(image)
        except Image.DecompressionBombError as error:
            problem = f"this image has more than {PIXEL_LIMIT:,} pixels"
            raise InputError("data.root", where, problem, "Make it smaller or cut it up") from error
        except Exception as error:  # decoders raise many kinds; all mean that the input is broken
            reason = str(error).split(" <_io.")[0]  # Pillow prints the address of our buffer
            problem = f"this image does not decode ({type(error).__name__}: {reason})"
            raise InputError("data.root", where, problem, "Replace or remove it") from error
        yield image, upper_bits


def decode(
    data: bytes | Path, size: int, where: str, value_range: Range | None = None
) -> NDArray[np.uint8]:
    """One image as (size, size, 3).

    Args:
        value_range: the values that become 0 and 255 where there are more than 8 bits.

    Raises:
        InputError: the image does not decode, or has more than 8 bits and ``value_range`` is not
            what is needed; ``where`` names the file or row.
    """
    with _loaded(data, where) as (image, upper_bits):
        if upper_bits:
            _check_upper_bits(value_range, where)
        if _deep(image):
            image = _scaled(image, value_range, where)
        return np.asarray(resize(image, size), dtype=np.uint8)


def _check_upper_bits(value_range: Range | None, where: str) -> None:
    if value_range != _UPPER_BITS:
        problem = "colour of 16 bits a value, of which only the upper 8 can be read"
        fix = "Convert it to 8 bits, or write data.value_range=[0,65535] if its values fill 16"
        raise InputError("data.root", where, problem, fix)


def _scaled(image: Image.Image, value_range: Range | None, where: str) -> Image.Image:
    if value_range is None:
        problem = "values of more than 8 bits, and nothing says which become black and white"
        fix = "Write data.value_range=[LOW,HIGH], or convert it to 8 bits"
        raise InputError("data.root", where, problem, fix)
    low, high = value_range
    values = _finite(image, where).astype(np.float64)
    grey = np.rint(np.clip((values - low) * (255 / (high - low)), 0, 255))
    return Image.fromarray(grey.astype(np.uint8)).convert("RGB")


def _finite(image: Image.Image, where: str) -> NDArray[Any]:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        problem = "some of its values are no numbers (NaN or infinity)"
        raise InputError("data.root", where, problem, "Replace them by numbers")
    return values


def extent(data: bytes | Path, where: str) -> tuple[float, float, bool]:
    """The least and the largest value of an image of more than 8 bits, and whether it is floats.

    Raises:
        InputError: it does not decode, has other values than finite ones, or is colour.
    """
    with _loaded(data, where) as (image, upper_bits):
        if upper_bits:
            _check_upper_bits(None, where)
        values = _finite(image, where)
        return float(values.min()), float(values.max()), image.mode == "F"


def shared_range(extents: Sequence[tuple[float, float, bool]], names: Sequence[str]) -> Range:
    """The values that become 0 and 255 in all images of a dataset, from the ``extent`` of each.

    Integers are scaled by the fewest bits, 8 or more, that hold the largest: a 12-bit scan in a
    16-bit file by 12 bits, whichever images are there. Where some are negative it is the least and
    the largest value. Floats are scaled from 0..1.

    Raises:
        InputError: floats outside 0..1, or a range so wide that the usual image would be of one
            shade, with the range that would fit.
    """
    lows, highs, floats = (np.array(column) for column in zip(*extents, strict=True))
    low, high = float(lows.min()), float(highs.max())
    usual = np.percentile(lows, 5), np.percentile(highs, 95)
    fix = "Look at the images: most hold one value only"
    if usual[0] < usual[1]:
        fix = f"Write data.value_range=[LOW,HIGH], here perhaps [{usual[0]:g},{usual[1]:g}]"
    if floats.any() and (low < 0 or high > 1):
        where = names[int(np.argmax(floats & ((lows < 0) | (highs > 1))))]
        problem = f"floats are taken as 0..1, and these images hold {low:g} to {high:g}"
        raise InputError("data.root", where, problem, f"{fix}, or convert them to 8 bits")
    if floats.any():
        low, high = 0.0, 1.0
    elif low >= 0:
        low, high = 0.0, 2.0 ** max(8, int(high).bit_length()) - 1
    if np.median(highs) - np.median(lows) <= (high - low) * _LEAST_SPREAD:
        where = names[int(np.argmax(highs))]
        problem = f"scaled from {low:g}..{high:g}, as far as this image goes, most would be black"
        raise InputError("data.root", where, f"{problem} or of one shade", fix)
    return low, high


def suspicious(data: bytes | Path) -> bool:
    """Whether an image's first or last bytes are not those of a whole PNG, JPEG or other image.

    A look that costs nearly nothing: suspects are decoded first, so that the broken last image of
    60,000 is reported at once. An image that is whole but looks odd merely decodes twice.
    """
    if isinstance(data, bytes):
        head, tail = data[:8], data[-64:]
    else:
        with data.open("rb") as file:
            head = file.read(8)
            file.seek(max(0, file.seek(0, io.SEEK_END) - 64))
            tail = file.read()
    match _format(head):
        case ("PNG",):
            return b"IEND" not in tail
        case ("JPEG",):
            return b"\xff\xd9" not in tail
    return not head.startswith((b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*", b"P"))


def each(
    batches: Iterable[Sequence[Encoded]], work: Callable[[bytes | Path, str], T]
) -> Iterator[list[T]]:
    """``work`` done on every image of a batch, in threads: Pillow lets go of Python's lock."""

    def some(part: Sequence[Encoded]) -> list[T]:
        return [work(data, where) for data, where in part]

    with ThreadPoolExecutor(THREADS) as pool:
        for batch in batches:
            parts = [batch[i : i + _CHUNK] for i in range(0, len(batch), _CHUNK)]
            yield [made for part in pool.map(some, parts) for made in part]
