"""Class folders: ``train/CLASS/*`` and ``test/CLASS/*``, or ``CLASS/*`` split by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from learngene.data.class_split import draw_division, paper_division
from learngene.data.dataset import SPLITS, Division
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import BATCH, check_labels, decode_batches, hash_files
from learngene.errors import InputError
from learngene.seeding import generator
from learngene.utils.files import expanded

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass
class FolderSource:
    """Image files by split, with a label for each."""

    root: Path
    class_names: tuple[str, ...]
    division: Division
    image_size: int
    files: dict[str, list[Path]]
    labels: dict[str, NDArray[np.int64]]
    shaping: dict[str, object]
    flip: bool = field(default=True)

    def content(self) -> str:
        return hash_files(sorted(self.files["train"] + self.files["test"]), self.root)

    def encoded(self, split: str) -> Iterator[list[tuple[bytes | Path, str]]]:
        files = self.files[split]
        for i in range(0, len(files), BATCH):
            yield [(file, str(file)) for file in files[i : i + BATCH]]

    def batches(self, split: str) -> Iterator[NDArray[np.uint8]]:
        return decode_batches(self.encoded(split), self.image_size)


def _classes(root: Path) -> dict[str, list[Path]]:
    """Sub-folders that hold images, with the images below each; hidden files do not count."""
    found: dict[str, list[Path]] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        images = [
            file
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        ]
        if images:
            found[folder.name] = images
    return found


def _is_split(folder: Path) -> bool:
    """Whether a folder called train or test holds classes; CIFAR-100 has a class called train."""
    return folder.is_dir() and bool(_classes(folder))


def _split(classes: dict[str, list[Path]], settings: SeededDataSettings) -> dict[str, dict]:
    """Draw ``test_share`` of each class; what is drawn of a class depends on its name and files."""
    if not 0 < settings.test_share < 1:
        problem = "the share of images that is test must lie between 0 and 1"
        raise InputError("data.test_share", settings.test_share, problem, "Try data.test_share=0.2")
    parts: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    for name, files in classes.items():
        if len(files) < 2:
            raise InputError(
                "data.root",
                settings.root,
                f"class {name} has {len(files)} image, a split into train and test needs 2",
                "Add images or remove the class",
            )
        count = min(max(round(settings.test_share * len(files)), 1), len(files) - 1)
        drawn = generator(settings.seed, f"imagefolder-split/{name}").permutation(len(files))
        parts["test"][name] = [files[i] for i in sorted(drawn[:count])]
        parts["train"][name] = [files[i] for i in sorted(drawn[count:])]
    return parts


def open_folder(settings: SeededDataSettings, size: int | None = None) -> FolderSource:
    """Class folders under ``data.root``; ``imagefolder`` or a named data set's classes.

    Args:
        settings: ``name`` decides the division: the paper's, or drawn by seed for ``imagefolder``.
        size: side of the images in pixels; None takes ``settings.image_size``.

    Raises:
        InputError: no root, no image size, no class folders, splits with different classes,
            too few classes or images, or shares that do not divide.
    """
    size = size or settings.image_size
    if settings.root is None:
        problem = f"{settings.name} reads a folder"
        raise InputError("data.root", None, problem, "Give data.root=DIR")
    if not size or size < 8:
        problem = "images of any size are resized to one, of at least 8 pixels"
        raise InputError("data.image_size", size, problem, "Give one, e.g. data.image_size=64")
    root = expanded(settings.root).resolve()
    if not root.is_dir():
        raise InputError("data.root", settings.root, "no such folder", "Check the path")
    split_in_source = _is_split(root / "train")
    if split_in_source:
        parts = {split: _classes(root / split) for split in SPLITS}
    else:
        parts = _split(_classes(root), settings)
    if not parts["train"] or not parts["test"]:
        missing = "test/CLASS/* beside train/" if split_in_source else "train/CLASS/* or CLASS/*"
        raise InputError(
            "data.root",
            settings.root,
            f"found no images in {missing} (looked for {' '.join(sorted(_SUFFIXES))})",
            "Point data.root at the folder that holds the class folders",
        )
    if odd := sorted(set(parts["train"]) ^ set(parts["test"])):
        side = "train" if odd[0] in parts["train"] else "test"
        problem = f"{len(odd)} classes are in one split only, e.g. {odd[0]} in {side}"
        raise InputError("data.root", settings.root, problem, "Give every class both splits")

    names = tuple(sorted(parts["train"]))
    shaping: dict[str, object] = {"image_size": size, "layout": "folders"}
    if settings.name == "imagefolder":
        division = draw_division(len(names), settings)
        shaping |= {"shares": [settings.base, settings.open_world, settings.novel]}
    else:
        division = paper_division(settings.name, names, "data.root", settings.root)
    if not split_in_source:
        shaping["test_share"] = settings.test_share
    if settings.name == "imagefolder" or not split_in_source:
        shaping["seed"] = settings.seed
    files = {s: [file for name in names for file in parts[s][name]] for s in SPLITS}
    labels = {
        s: np.repeat(np.arange(len(names)), [len(parts[s][name]) for name in names]) for s in SPLITS
    }
    check_labels(labels, names, "data.root", settings.root)
    return FolderSource(root, names, division, size, files, labels, shaping)
