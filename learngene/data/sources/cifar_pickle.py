"""The original ``cifar-100-python/``: three pickles, read by an unpickler that can run nothing."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learngene.data.class_split import paper_division
from learngene.data.dataset import SPLITS, Division
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import BATCH, check_labels, hash_files, resize
from learngene.errors import InputError

_FILES = ("train", "test", "meta")


def _latin1(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes in old pickles: ``_codecs.encode(text, 'latin1')``."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding} is not allowed")
    return text.encode("latin1")


class ArrayUnpickler(pickle.Unpickler):
    """Reads plain containers, text, numbers and NumPy arrays; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            from numpy._core.multiarray import _reconstruct

            return _reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a CIFAR-100 pickle")


def _read(file: Path) -> dict[str, Any]:
    """The pickled dict with text keys; ``bytes`` lets Python 2 strings through unharmed."""
    try:
        with file.open("rb") as stream:
            found = ArrayUnpickler(stream, encoding="bytes").load()
        return {k.decode() if isinstance(k, bytes) else k: v for k, v in found.items()}
    except Exception as error:  # damaged pickles raise nearly anything
        raise InputError(
            "data.root",
            file,
            f"not a CIFAR-100 pickle ({type(error).__name__}: {error})",
            "Unpack cifar-100-python.tar.gz again",
        ) from error


def find_cifar_python(root: Path) -> Path | None:
    """The folder with CIFAR-100's three files, at ``root`` or right below it."""
    for folder in (root / "cifar-100-python", root):
        if all((folder / name).is_file() for name in _FILES):
            return folder
    return None


@dataclass
class CifarPythonSource:
    """The 60,000 images of ``cifar-100-python/``, held in memory (180 MB) while they are read."""

    folder: Path
    class_names: tuple[str, ...]
    division: Division
    image_size: int
    labels: dict[str, NDArray[np.int64]]
    pixels: dict[str, NDArray[np.uint8]]  # split -> (N, 3072), channel by channel
    shaping: dict[str, object]
    flip: bool = field(default=True)

    def content(self) -> str:
        return hash_files([self.folder / name for name in _FILES])

    def encoded(self, split: str) -> Iterator[list[tuple[bytes | Path, str]]]:
        return iter(())

    def batches(self, split: str) -> Iterator[NDArray[np.uint8]]:
        for i in range(0, len(self.pixels[split]), BATCH):
            part = self.pixels[split][i : i + BATCH].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            if self.image_size != 32:
                images = (Image.fromarray(np.ascontiguousarray(image)) for image in part)
                part = np.stack([np.asarray(resize(im, self.image_size)) for im in images])
            yield part


def open_cifar_python(folder: Path, settings: SeededDataSettings, size: int) -> CifarPythonSource:
    """Read the three files.

    Raises:
        InputError: a file is damaged, not CIFAR-100's, or wants to run something.
    """
    names = tuple(
        name.decode() if isinstance(name, bytes) else str(name)
        for name in _read(folder / "meta").get("fine_label_names", ())
    )
    division = paper_division("cifar100", names, "data.root", settings.root)
    labels: dict[str, NDArray[np.int64]] = {}
    pixels: dict[str, NDArray[np.uint8]] = {}
    for split in SPLITS:
        found = _read(folder / split)
        data, fine = found.get("data"), found.get("fine_labels")
        shape = getattr(data, "shape", None)
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or not isinstance(fine, list):
            raise InputError(
                "data.root",
                folder / split,
                "it needs 'data' (uint8) and 'fine_labels' (a list)",
                "Use CIFAR-100's python version",
            )
        if shape != (len(fine), 3072):
            problem = f"data has shape {shape}, {len(fine)} labels need ({len(fine)}, 3072)"
            raise InputError("data.root", folder / split, problem, "Unpack the archive again")
        labels[split], pixels[split] = np.asarray(fine, np.int64), data
    check_labels(labels, names, "data.root", settings.root)
    shaping: dict[str, object] = {"image_size": size, "layout": "cifar-100-python"}
    return CifarPythonSource(folder, names, division, size, labels, pixels, shaping)
