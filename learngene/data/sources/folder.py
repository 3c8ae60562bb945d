"""Class folders: ``train/CLASS/*`` and ``test/CLASS/*``, or ``CLASS/*`` split by seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learngene.data.class_split import draw_class_split, paper_class_split, unusable
from learngene.data.dataset import SPLITS
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import BATCH, Source, hash_files
from learngene.errors import InputError
from learngene.seeding import generator

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(kw_only=True)
class FolderSource(Source):
    """Image files by split, with a label for each."""

    root: Path
    files: dict[str, list[Path]]

    def content(self) -> str:
        return hash_files(sorted(self.files["train"] + self.files["test"]), self.root)

    def encoded(self, split: str) -> Iterator[list[tuple[bytes | Path, str]]]:
        files = self.files[split]
        for i in range(0, len(files), BATCH):
            yield [(file, str(file)) for file in files[i : i + BATCH]]


def _classes(root: Path) -> dict[str, list[Path]]:
    """Sub-folders that hold images, with the images below each; hidden files do not count."""
    classes: dict[str, list[Path]] = {}
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        images = [
            file
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        ]
        if images:
            classes[folder.name] = images
    return classes


def _split(classes: dict[str, list[Path]], settings: SeededDataSettings) -> dict[str, dict]:
    """Draw ``test_share`` of each class; what is drawn of a class depends on its name and files."""
    if not 0 < settings.test_share < 1:
        problem = "the share of images that is test must lie between 0 and 1"
        raise InputError("data.test_share", settings.test_share, problem, "Try data.test_share=0.2")
    parts: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    for name, files in classes.items():
        if len(files) < 2:
            problem = f"class {name} has {len(files)} image, a split into train and test needs 2"
            raise unusable(settings, problem, "Add images or remove the class")
        count = min(max(round(settings.test_share * len(files)), 1), len(files) - 1)
        order = generator(settings.seed, f"imagefolder-split/{name}").permutation(len(files))
        parts["test"][name] = [files[i] for i in sorted(order[:count])]
        parts["train"][name] = [files[i] for i in sorted(order[count:])]
    return parts


def open_folder(root: Path, settings: SeededDataSettings, size: int) -> FolderSource:
    """Class folders under ``root``; ``imagefolder`` or a named data set's classes.

    Args:
        settings: ``name`` decides the split: the paper's, or drawn by seed for ``imagefolder``.
        size: side of the images in pixels.

    Raises:
        InputError: no class folders, splits with different classes, too few classes or images, or
            shares that do not divide.
    """
    # Whether train/ holds classes; CIFAR-100 has a class called train.
    split_in_source = bool(_classes(root / "train"))
    if split_in_source:
        parts = {split: _classes(root / split) for split in SPLITS}
    else:
        parts = _split(_classes(root), settings)
    if not parts["train"] or not parts["test"]:
        missing = "test/CLASS/* beside train/" if split_in_source else "train/CLASS/* or CLASS/*"
        problem = f"found no images in {missing} (looked for {' '.join(sorted(_SUFFIXES))})"
        fix = "Point data.root at the folder that holds the class folders"
        raise unusable(settings, problem, fix)
    if odd := sorted(set(parts["train"]) ^ set(parts["test"])):
        side = "train" if odd[0] in parts["train"] else "test"
        problem = f"{len(odd)} classes are in one split only, e.g. {odd[0]} in {side}"
        raise unusable(settings, problem, "Give every class both splits")

    names = tuple(sorted(parts["train"]))
    shaping: dict[str, object] = {"image_size": size, "layout": "folders"}
    if settings.name == "imagefolder":
        class_split = draw_class_split(len(names), settings)
        shaping["shares"] = [settings.base, settings.open_world, settings.novel]
    else:
        class_split = paper_class_split(settings, names)
    if not split_in_source:
        shaping["test_share"] = settings.test_share
    if settings.name == "imagefolder" or not split_in_source:
        shaping["seed"] = settings.seed
    counts = {s: [len(parts[s][name]) for name in names] for s in SPLITS}
    return FolderSource(
        root=root,
        class_names=names,
        class_split=class_split,
        image_size=size,
        files={s: [file for name in names for file in parts[s][name]] for s in SPLITS},
        labels={s: np.repeat(np.arange(len(names)), counts[s]) for s in SPLITS},
        shaping=shaping,
    )
