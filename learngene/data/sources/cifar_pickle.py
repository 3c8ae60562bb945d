"""The original ``cifar-100-python/``: three pickles, read by an unpickler that can run nothing."""

from __future__ import annotations

import pickle
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from learngene.data.class_split import named_class_split
from learngene.data.dataset import SPLITS
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import BATCH, Source, check_file, hash_files
from learngene.data.sources.decode import resize
from learngene.errors import InputError
from learngene.utils.untrusted import MEBIBYTE, is_int_in_range

_FILES = ("train", "test", "meta")
_LIMIT = 1024 * MEBIBYTE  # bytes of a file; the training images' has 155 million


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
    check_file(file, _LIMIT)
    try:
        with file.open("rb") as stream:
            _check_memo(stream)
            content = ArrayUnpickler(stream, encoding="bytes").load()
    except Exception as error:  # damaged pickles raise nearly anything
        raise _damaged(file, f"{type(error).__name__}: {error}") from error
    if not isinstance(content, dict):
        raise _damaged(file, "it holds no dict")
    return {_text(key): value for key, value in content.items()}


def _check_memo(stream: IO[bytes]) -> None:
    """Refuse a place in the memo that nobody needs: the memo is made as large, be it 64 GB."""
    for count, (opcode, place, _) in enumerate(pickletools.genops(stream)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (place or 0) > count:
            raise pickle.UnpicklingError(f"place {place} of the memo after {count} instructions")
    stream.seek(0)


def _damaged(file: Path, reason: str) -> InputError:
    problem = f"not a CIFAR-100 pickle ({reason})"
    return InputError("data.root", file, problem, "Unpack cifar-100-python.tar.gz again")


def _text(value: Any) -> Any:
    """Bytes as the text that they are, or as none that could be meant; anything else as it is."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def find_cifar_python(root: Path) -> Path | None:
    """The folder with CIFAR-100's three files, at ``root`` or right below it."""
    for folder in (root / "cifar-100-python", root):
        if all((folder / name).is_file() for name in _FILES):
            return folder
    return None


@dataclass(kw_only=True)
class CifarPythonSource(Source):
    """The 60,000 images of ``cifar-100-python/``, held in memory (180 MB) while they are read."""

    folder: Path
    pixels: dict[str, NDArray[np.uint8]]  # split -> (N, 3072), channel by channel

    def content(self) -> str:
        return hash_files([self.folder / name for name in _FILES])

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
    listed = _read(folder / "meta").get("fine_label_names")
    if not isinstance(listed, list) or not all(isinstance(name, str | bytes) for name in listed):
        raise _damaged(folder / "meta", "'fine_label_names' is no list of names")
    names = tuple(map(_text, listed))
    class_split = named_class_split(settings, names)
    labels: dict[str, NDArray[np.int64]] = {}
    pixels: dict[str, NDArray[np.uint8]] = {}
    for split in SPLITS:
        file = folder / split
        content = _read(file)
        data, fine = content.get("data"), content.get("fine_labels")
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or not isinstance(fine, list):
            problem = "it needs 'data' (uint8) and 'fine_labels' (a list)"
            raise InputError("data.root", file, problem, "Use CIFAR-100's python version")
        if data.shape != (len(fine), 3072):
            problem = f"data has shape {data.shape}, {len(fine)} labels need ({len(fine)}, 3072)"
            raise InputError("data.root", file, problem, "Unpack the archive again")
        for i, label in enumerate(fine):
            if not is_int_in_range(label, 0, len(names) - 1):
                problem = f"its label {i} is no class number (0..{len(names) - 1})"
                raise InputError("data.root", file, problem, "Unpack the archive again")
        labels[split], pixels[split] = np.asarray(fine, np.int64), data
    return CifarPythonSource(
        folder=folder,
        class_names=names,
        class_split=class_split,
        image_size=size,
        labels=labels,
        pixels=pixels,
        shaping={"image_size": size, "layout": "cifar-100-python"},
    )
