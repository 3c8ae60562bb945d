"""Class folders: ``train/CLASS/*`` and ``test/CLASS/*``, or ``CLASS/*`` split by seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learngene.data.class_split import draw_class_split, named_class_split, unusable
from learngene.data.dataset import SPLITS, ClassSplit
from learngene.data.settings import SeededDataSettings, value_bounds
from learngene.data.sources.base import BATCH, ProgressFn, Source, check_file, hash_files, shown
from learngene.data.sources.decode import (
    Encoded,
    each,
    extent,
    is_wide,
    shared_range,
)
from learngene.errors import InputError
from learngene.seeding import generator
from learngene.utils.untrusted import MEBIBYTE

FILE_LIMIT = 1024 * MEBIBYTE  # bytes of an image file: more than its pixels may take undecoded
_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass(kw_only=True)
class FolderSource(Source):
    """Image files by split, with a label for each."""

    root: Path
    files: dict[str, list[Path]]

    def content(self) -> str:
        return hash_files(sorted(self.files["train"] + self.files["test"]), self.root)

    def encoded(self, split: str) -> Iterator[list[Encoded]]:
        files = self.files[split]
        for i in range(0, len(files), BATCH):
            yield [(file, str(file)) for file in files[i : i + BATCH]]

    def where(self, split: str, row: int) -> str:
        return str(self.files[split][row])

    def measure(self, progress: ProgressFn) -> None:
        """Find the range that the images share, test images too: it is no more than a unit."""
        if "value_range" not in self.shaping:
            return
        if self.value_range is None:
            found: list[tuple[float, float, bool]] = []
            for split in SPLITS:
                for batch in each(self.encoded(split), extent):
                    found += batch
                    progress("range of values", len(found), sum(map(len, self.labels.values())))
            self.value_range = shared_range(found, [str(f) for s in SPLITS for f in self.files[s]])
        low, high = self.value_range
        self.notes.append(
            f"values {low:g}..{high:g} of images of more than 8 bits become 0..255 "
            "(data.value_range)"
        )


def _unreadable(error: OSError) -> InputError:
    problem = f"this folder cannot be read ({error.strerror})"
    return InputError("data.root", shown(error.filename), problem, "Make it readable or remove it")


def image_files(folder: Path) -> list[Path]:
    """Files below a class folder that have an image's name; links to folders are not followed.

    Raises:
        InputError: a folder cannot be read, or such a file is none that may be (``check_file``).
    """

    def refuse(error: OSError) -> None:
        raise _unreadable(error) from error

    found = []
    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES
        ]
    for file in found:
        check_file(file, FILE_LIMIT)
    return sorted(found)


def _classes(root: Path) -> dict[str, list[Path]]:
    """Sub-folders that hold images, with the images below each; hidden ones do not count.

    Raises:
        InputError: a folder or a file in it cannot be read, or a link leads nowhere.
    """
    classes: dict[str, list[Path]] = {}
    try:
        entries = sorted(root.iterdir()) if root.is_dir() else []
    except OSError as error:
        raise _unreadable(error) from error
    for folder in entries:
        if folder.name.startswith("."):
            continue
        if folder.is_symlink() and not folder.exists():  # it may have been a class
            check_file(folder)
        if folder.is_dir() and (images := image_files(folder)):
            classes[folder.name] = images
    return classes


def _depth(files: list[Path], settings: SeededDataSettings) -> dict[str, object]:
    """What the arrays depend on where images have more than 8 bits a value; else nothing.

    Raises:
        InputError: only some have more, and no range is given: the measured one of these would say
            nothing of the others.
    """
    wide = [is_wide(file) for file in files]
    if not any(wide):
        return {}
    if settings.value_range is None and not all(wide):
        file, of_8 = files[wide.index(True)], len(files) - sum(wide)
        problem = f"it has more than 8 bits a value, and {of_8} of {len(files)} images have 8"
        fix = "Save all alike, or write data.value_range=[LOW,HIGH] for those of more"
        raise InputError("data.root", file, problem, fix)
    return {"value_range": settings.value_range or "measured"}


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


def open_folder(
    root: Path, settings: SeededDataSettings, size: int, *, divided: bool = True
) -> FolderSource:
    """Class folders under ``root``; ``imagefolder`` or a named data set's classes.

    Args:
        settings: ``name`` decides the split: the paper's, or drawn by seed for ``imagefolder``.
        size: side of the images in pixels.
        divided: the classes are those of a factory and of its clients; else all are one client's.

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
    if not divided:
        class_split = ClassSplit((), (), tuple(range(len(names))))
    elif settings.name == "imagefolder":
        class_split = draw_class_split(len(names), settings)
        shaping["shares"] = [settings.base, settings.open_world, settings.novel]
    else:
        class_split = named_class_split(settings, names)
    if not split_in_source:
        shaping["test_share"] = settings.test_share
    if settings.name == "imagefolder" or not split_in_source:
        shaping["seed"] = settings.seed
    counts = {s: [len(parts[s][name]) for name in names] for s in SPLITS}
    files = {s: [file for name in names for file in parts[s][name]] for s in SPLITS}
    return FolderSource(
        root=root,
        class_names=names,
        class_split=class_split,
        image_size=size,
        files=files,
        labels={s: np.repeat(np.arange(len(names)), counts[s]) for s in SPLITS},
        shaping=shaping | _depth(files["train"] + files["test"], settings),
        value_range=value_bounds(settings),
    )
