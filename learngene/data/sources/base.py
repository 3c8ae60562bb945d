"""What every source of images offers ``build``, and the checks that they share."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from learngene.data.class_split import unusable
from learngene.data.dataset import ClassSplit
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.decode import THREADS, Encoded, Range, decode, each
from learngene.errors import InputError

ProgressFn = Callable[[str, int, int | None], None]  # what is done, images so far, images in all
BATCH = 512  # images decoded before they are written: bounds memory


@dataclass(kw_only=True)
class Source(ABC):
    """Images that a dataset can be built from. Opening one reads labels, never pixels."""

    class_names: tuple[str, ...]
    class_split: ClassSplit
    image_size: int  # side in pixels of what ``batches`` yields
    labels: dict[str, NDArray[np.int64]]  # split -> (N,)
    shaping: dict[str, object]  # every setting that the arrays depend on, for the cache key
    flip: bool = True  # a mirrored image keeps its label
    value_range: Range | None = None  # of images of more than 8 bits: what becomes 0 and 255
    notes: list[str] = field(default_factory=list)  # what the user should know of the images

    @abstractmethod
    def content(self) -> str:
        """A hash of the bytes that the images come from."""

    def measure(self, progress: ProgressFn) -> None:  # noqa: B027 - most need none
        """Look at all images once where ``value_range`` hangs on them; before they are decoded."""

    def encoded(self, split: str) -> Iterator[list[Encoded]]:
        """Undecoded images with their file or row, in batches; none where nothing is encoded."""
        return iter(())

    def decoded(self, data: bytes | Path, where: str) -> NDArray[np.uint8]:
        """One image of ``encoded`` as (H, W, C)."""
        return decode(data, self.image_size, where, self.value_range)

    def batches(self, split: str) -> Iterator[NDArray[np.uint8]]:
        """The images of a split in the order of its labels, as arrays (B, H, W, C)."""
        return map(np.stack, each(self.encoded(split), self.decoded))

    def where(self, split: str, row: int) -> str:
        """The file or row of an image, for messages."""
        return f"{split} row {row}"


def check_file(file: Path, limit: float = math.inf) -> None:
    """Hold what has the name of a data file to being one, before anything opens it.

    Raises:
        InputError: it leads nowhere, is a pipe (which would never end), a socket, a device or a
            folder, has more than ``limit`` bytes, or a name that is no text.
    """
    try:
        status = file.stat()
        str(file).encode()
    except OSError as error:  # a link to nothing or to itself
        problem = f"there is no such file ({error.strerror})"
        raise InputError("data.root", shown(file), problem, "Mend the link or remove it") from error
    except UnicodeEncodeError as error:
        problem = "the name is not UTF-8"
        raise InputError("data.root", shown(file), problem, "Rename it") from error
    if not stat.S_ISREG(status.st_mode):
        problem = "no regular file, but a pipe, a socket, a device or a folder"
        raise InputError("data.root", file, problem, "Remove it")
    if not os.access(file, os.R_OK):
        raise InputError("data.root", file, "may not be read", "Make it readable or remove it")
    if status.st_size > limit:
        problem = f"has {status.st_size:,} bytes, at most {limit:,} are read"
        raise InputError("data.root", file, problem, "Remove it, or make it smaller")


def shown(path: object) -> str:
    """A path as text that can be written: bytes that are no UTF-8 as ``\\xNN``."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def hash_files(files: Sequence[Path], root: Path | None = None) -> str:
    """SHA-256 over the bytes (and, with ``root``, the relative names) of files, in their order.

    Raises:
        InputError: a file cannot be read.
    """

    def one(file: Path) -> bytes:
        try:
            with file.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").digest()
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
            raise InputError("data.root", file, problem, "Make it readable or remove it") from error

    total = hashlib.sha256()
    with ThreadPoolExecutor(THREADS) as pool:
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
