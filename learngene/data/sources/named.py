"""Images on the disk: find out in which form they lie under ``data.root``."""

from __future__ import annotations

import os
from pathlib import Path

from learngene.data.class_lists import files_of
from learngene.data.class_split import unusable
from learngene.data.settings import SeededDataSettings
from learngene.data.sources.base import Source
from learngene.data.sources.cifar_pickle import find_cifar_python, open_cifar_python
from learngene.data.sources.folder import open_folder
from learngene.data.sources.parquet import HUB, find_parquet, open_hub, open_parquet
from learngene.errors import InputError
from learngene.utils.files import is_folder

_SIZE = {"cifar100": 32, "imagenet100": 84}  # sides in pixels


def readable_root(settings: SeededDataSettings) -> Path:
    """``data.root``, resolved.

    Raises:
        InputError: it is no folder, or may not be read.
    """
    root = Path(settings.root or "")
    if not is_folder(root):
        raise unusable(settings, "no such folder", "Check the path")
    if not os.access(root, os.R_OK | os.X_OK):
        raise unusable(settings, "this folder may not be read", "Make it readable")
    return root.resolve()


def open_images(settings: SeededDataSettings) -> Source:
    """``imagefolder``, or a named data set: parquet, CIFAR's pickles, class folders or the hub.

    Raises:
        InputError: there is no image size or no root and no leave to download, or nothing usable
            lies there.
    """
    name = files_of(settings.name)
    size = settings.image_size or _SIZE.get(name, 0)
    if size < 8:
        problem = "images of any size are resized to one, which has to be given"
        fix = f"Write, for instance, data.image_size={_SIZE.get(name, 64)}"
        raise InputError("data.image_size", settings.image_size, problem, fix)
    if settings.root is None:
        fix = "Give a folder with data.root=DIR"
        if name in HUB:
            if settings.download:
                return open_hub(settings, size)
            fix += f", or let the hub be asked for {HUB[name]} with data.download=true"
        raise InputError("data.root", None, f"{name} has to come from somewhere", fix)
    root = readable_root(settings)
    if name == "imagefolder":
        return open_folder(root, settings, size)
    files = find_parquet(root)
    if any(files.values()):
        return open_parquet(files, settings, size)
    if name == "cifar100" and (folder := find_cifar_python(root)):
        return open_cifar_python(folder, settings, size)
    if any(entry.is_dir() for entry in root.iterdir()):
        return open_folder(root, settings, size)
    forms = "train*.parquet with test*.parquet, class folders"
    if name == "cifar100":
        forms += ", cifar-100-python/"
    problem = f"found no {name} there (looked for {forms})"
    raise unusable(settings, problem, "Point data.root at the folder that holds them")
