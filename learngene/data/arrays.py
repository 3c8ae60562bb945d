"""Write a dataset's arrays into their final ``.npy``, never holding them whole."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learngene.data.dataset import HASH
from learngene.errors import InputError
from learngene.utils.files import write_atomically
from learngene.utils.untrusted import npy_header

READ = 2**22  # bytes at once
_ROWS = 1024  # rows moved at once when dropped images are closed up


def _header(shape: tuple[int, ...]) -> bytes:
    return npy_header(np.dtype(np.uint8), shape)


def image_hashes(batch: NDArray[np.uint8]) -> NDArray[np.void]:
    """Content hashes (B,) of images (B, H, W, C)."""
    digests = [hashlib.blake2b(i, digest_size=16).digest() for i in np.ascontiguousarray(batch)]
    return np.frombuffer(b"".join(digests), HASH)


class ImageFile:
    """A ``.npy`` of uint8 images that grows by batches and then drops rows.

    Written through the file rather than a memory map: mapped pages that are written count
    against the process, and mini-ImageNet has 1.27 GB of them.
    """

    def __init__(self, path: Path, rows: int, image: tuple[int, int, int]) -> None:
        """``image`` is (H, W, C)."""
        self.path, self.rows, self.image = path, rows, image
        self.written = 0
        self.hashes = np.empty(rows, HASH)
        # NumPy pads the header for a growing first axis, so a later, smaller count fits.
        self.offset = len(_header((rows, *image)))
        self._file = path.open("w+b")
        self._file.write(_header((rows, *image)))

    def append(self, batch: NDArray[np.uint8]) -> None:
        """Add images (B, H, W, C) and their content hashes."""
        end = self.written + len(batch)
        if batch.shape[1:] != self.image or end > self.rows:
            arrived = f"{end} images of {batch.shape[1:]} arrived"
            problem = f"{arrived}, {self.rows} of {self.image} were announced"
            fix = "Leave the source alone while it is read"
            raise InputError("data.root", self.path.stem, problem, fix)
        self.hashes[self.written : end] = image_hashes(batch)
        self._file.write(batch.tobytes())
        self.written = end

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Drop the rows (N,) that are False, moving the later ones forward; the last step."""
        remaining = np.flatnonzero(mask)
        self._file.flush()
        size = math.prod(self.image)
        start = len(remaining) if mask.all() else int(np.argmin(mask))  # before it nothing moves
        for first in range(start, len(remaining), _ROWS):
            rows = remaining[first : first + _ROWS]  # at or after where they go, so order is safe
            shape = (int(rows[-1] - rows[0]) + 1, size)
            source = np.memmap(self.path, np.uint8, "r", self.offset + int(rows[0]) * size, shape)
            moved = source[rows - rows[0]].tobytes()
            del source
            self._file.seek(self.offset + first * size)
            self._file.write(moved)
            self._file.flush()
        self.rows, self.hashes = len(remaining), self.hashes[remaining]
        header = _header((self.rows, *self.image))
        assert len(header) == self.offset
        self._file.seek(0)
        self._file.write(header)
        self._file.truncate(self.offset + self.rows * size)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close for good; what ``keep`` has left is on the disk by then."""
        self._file.close()


def content_sha256(
    folder: Path,
    names: Sequence[str],
    groups: Mapping[str, Sequence[int]],
    labels: Mapping[str, NDArray[np.int64]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> str:
    """sha256 over class names, class split, images and labels; every image is read.

    Args:
        progress: told how many images have been read, of how many.
    """
    described = json.dumps([list(names), {k: list(v) for k, v in groups.items()}])
    digest, total, done = hashlib.sha256(described.encode()), sum(map(len, labels.values())), 0
    for split, its in labels.items():
        with (folder / f"{split}_images.npy").open("rb") as file:
            np.lib.format.read_magic(file)  # its header is known to be one of ours
            np.lib.format.read_array_header_1_0(file)
            first, size = file.tell(), os.fstat(file.fileno()).st_size
            while block := file.read(READ):
                digest.update(block)
                progress(done + len(its) * (file.tell() - first) // (size - first), total)
        done += len(its)
        digest.update(its.astype("<i8").tobytes())
    return digest.hexdigest()


def first_copies(
    hashes: Mapping[str, NDArray[np.void]], labels: Mapping[str, NDArray[np.int64]]
) -> tuple[dict[str, NDArray[np.bool_]], int]:
    """Which rows of each split to keep so that no pixels occur twice anywhere.

    Of equal images the first test copy is kept, else the first training copy, whatever their
    labels: a test set should stay comparable with other people's.

    Returns:
        split -> mask (N,), and how many dropped images disagreed with the kept copy's label.
    """
    label_of: dict[bytes, int] = {}
    masks: dict[str, NDArray[np.bool_]] = {}
    conflicts = 0
    for split in ("test", "train"):
        masks[split] = np.ones(len(labels[split]), np.bool_)
        pairs = zip(hashes[split].tolist(), labels[split].tolist(), strict=True)
        for row, (content, label) in enumerate(pairs):
            if content in label_of:
                masks[split][row] = False
                conflicts += label_of[content] != label
            else:
                label_of[content] = label
    return masks, conflicts


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Save a small array and put it on the disk."""
    write_atomically(path, npy_header(array.dtype, array.shape) + array.tobytes())


def sync_folder(path: Path) -> None:
    """Put a folder's entries on the disk, so that a rename survives a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
