"""What every source of images offers ``build``, and the decoding that they share."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from learngene.data.class_split import unusable
from learngene.data.dataset import ClassSplit
from learngene.data.settings import SeededDataSettings
from learngene.errors import InputError
from learngene.utils.hardware import usable_cores

BATCH = 512  # images decoded before they are written: bounds memory
_CHUNK = 32  # images that a thread takes at once: small images cost less than handing them over
_THREADS = min(8, usable_cores())


@dataclass(kw_only=True)
class Source(ABC):
    """Images that a dataset can be built from. Opening one reads labels only, never pixels."""

    class_names: tuple[str, ...]
    class_split: ClassSplit
    image_size: int  # side in pixels of what ``batches`` yields
    labels: dict[str, NDArray[np.int64]]  # split -> (N,)
    shaping: dict[str, object]  # every setting that the arrays depend on, for the cache key
    flip: bool = True  # a mirrored image keeps its label

    @abstractmethod
    def content(self) -> str:
        """A hash of the bytes that the images come from."""

    def encoded(self, split: str) -> Iterator[list[tuple[bytes | Path, str]]]:
        """Undecoded images with their file or row, in batches; none where nothing is encoded."""
        return iter(())

    def batches(self, split: str) -> Iterator[NDArray[np.uint8]]:
        """The images of a split in the order of its labels, as arrays (B, H, W, C)."""
        return decode_batches(self.encoded(split), self.image_size)


def to_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow mode as RGB: transparency on white, 16-bit grey scaled rather than clipped."""
    if "exif" in image.info:
        image = ImageOps.exif_transpose(image)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        wide = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("RGB")


def resize(image: Image.Image, size: int) -> Image.Image:
    """The largest centred square, resized to ``size`` with an antialiasing bicubic filter."""
    if image.size == (size, size):
        return image
    return ImageOps.fit(image, (size, size), method=Image.Resampling.BICUBIC)


def _format(head: bytes) -> tuple[str, ...] | None:
    """The decoder to use, where the first bytes tell: asking all of them costs a quarter more."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return ("PNG",)
    return ("JPEG",) if head.startswith(b"\xff\xd8\xff") else None


def decode(data: bytes | Path, size: int, where: str) -> NDArray[np.uint8]:
    """One image as (size, size, 3).

    Raises:
        InputError: the image does not decode; ``where`` names the file or row.
    """
    try:
        content = data if isinstance(data, bytes) else data.read_bytes()
        with Image.open(io.BytesIO(content), formats=_format(content[:8])) as image:
            image.load()
            return np.asarray(resize(to_rgb(image), size), dtype=np.uint8)
    except Exception as error:  # decoders raise many kinds; all mean that the input is broken
        reason = str(error).split(" <_io.")[0]  # Pillow prints the address of our buffer
        problem = f"this image does not decode ({type(error).__name__}: {reason})"
        raise InputError("data.root", where, problem, "Replace or remove it") from error


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


def decode_batches(
    batches: Iterable[Sequence[tuple[bytes | Path, str]]], size: int
) -> Iterator[NDArray[np.uint8]]:
    """Decode batches of (data, where) in threads; Pillow lets go of the interpreter lock."""

    def some(part: Sequence[tuple[bytes | Path, str]]) -> NDArray[np.uint8]:
        return np.stack([decode(data, size, where) for data, where in part])

    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in batches:
            parts = [batch[i : i + _CHUNK] for i in range(0, len(batch), _CHUNK)]
            yield np.concatenate(list(pool.map(some, parts)))


def hash_files(files: Sequence[Path], root: Path | None = None) -> str:
    """SHA-256 over the bytes (and, with ``root``, the relative names) of files, in their order."""

    def one(file: Path) -> bytes:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()

    total = hashlib.sha256()
    with ThreadPoolExecutor(_THREADS) as pool:
        for file, digest in zip(files, pool.map(one, files, chunksize=64), strict=True):
            total.update(file.relative_to(root).as_posix().encode() + b"\0" if root else b"")
            total.update(digest)
    return total.hexdigest()


def check_labels(
    labels: dict[str, NDArray[np.int64]], class_names: Sequence[str], settings: SeededDataSettings
) -> None:
    """Every label names a class, and every class has an image in both splits.

    Raises:
        InputError: otherwise, with the split, the class and the numbers.
    """
    for split, values in labels.items():
        if values.size and not 0 <= values.min() <= values.max() < len(class_names):
            problem = f"a {split} label is outside 0..{len(class_names) - 1}"
            raise unusable(settings, problem, "Use the source's original labels")
        empty = np.flatnonzero(np.bincount(values, minlength=len(class_names)) == 0)
        if empty.size:
            problem = f"class {class_names[empty[0]]} has 0 {split} images, it needs at least 1"
            if empty.size > 1:
                problem += f" ({empty.size} classes lack them)"
            raise unusable(settings, problem, "Add images or remove the class")
